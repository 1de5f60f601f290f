//! From the configured endpoints and what their names resolved to, the members of a pool.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::registry::Lineage;
use super::set::{MEMBERS_MAX, Member};
use crate::config::{EndpointAddress, PoolConfig};

/// What each host name resolved to last.
pub(super) type Names = HashMap<Arc<str>, Arc<[IpAddr]>>;

/// The distinct host names of a pool.
pub(super) fn host_names(config: &PoolConfig) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for endpoint in &config.endpoints {
        if let EndpointAddress::Name { host, .. } = &endpoint.address
            && !names.iter().any(|known| **known == **host)
        {
            names.push(host.as_str().into());
        }
    }
    names
}

/// The members, in the order of the configuration. Endpoints of `before` with the same address and authority are
/// taken over with all that is known of them. An address that is listed twice is one endpoint with both weights.
pub(super) fn assemble(
    config: &PoolConfig,
    names: &Names,
    before: &[Member],
    lineage: &Arc<Lineage>,
) -> Vec<Member> {
    let known: HashMap<SocketAddr, &Arc<Endpoint>> = before
        .iter()
        .map(|m| (m.endpoint.address, &m.endpoint))
        .collect();
    if config.is_handled() {
        return super::handlers::members(config, before, lineage);
    }
    let mut members: Vec<Member> = Vec::new();
    let mut position: HashMap<SocketAddr, usize> = HashMap::new();
    let mut left_out = 0usize;
    for (address, name, weight) in addresses(config, names) {
        if let Some(twin) = position.get(&address).and_then(|&at| members.get_mut(at)) {
            twin.weight = twin.weight.saturating_add(weight);
            continue;
        }
        if members.len() == MEMBERS_MAX {
            left_out += 1;
            continue;
        }
        let endpoint = match known.get(&address) {
            Some(same) if is_named(same, name) => Arc::clone(same),
            _ => Arc::new(Endpoint::new(&config.name, address, name, lineage)),
        };
        position.insert(address, members.len());
        members.push(Member { endpoint, weight });
    }
    if left_out > 0 {
        tracing::warn!(pool = %config.name, left_out, max = MEMBERS_MAX, "too many endpoints: those beyond the maximum get no traffic");
    }
    members
}

fn addresses<'a>(
    config: &'a PoolConfig,
    names: &'a Names,
) -> impl Iterator<Item = (SocketAddr, Option<&'a str>, u32)> {
    config.endpoints.iter().flat_map(move |endpoint| {
        let (fixed, name, port, ips) = match &endpoint.address {
            EndpointAddress::Ip(address) => (Some(*address), None, 0, &[][..]),
            EndpointAddress::Handler { .. } => (None, None, 0, &[][..]),
            EndpointAddress::Name { host, port } => {
                let ips = names.get(host.as_str()).map_or(&[][..], |ips| ips);
                (None, Some(host.as_str()), *port, ips)
            }
        };
        let resolved = ips.iter().map(move |&ip| SocketAddr::new(ip, port));
        fixed
            .into_iter()
            .chain(resolved)
            .map(move |address| (address, name, endpoint.weight))
    })
}

fn is_named(endpoint: &Endpoint, name: Option<&str>) -> bool {
    match name {
        None => endpoint.authority == endpoint.text,
        Some(name) => {
            let host = endpoint.authority.rsplit_once(':').map(|(host, _)| host);
            host == Some(name)
        }
    }
}
