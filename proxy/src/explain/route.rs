//! The pool and the endpoint, and who or what chose them. The pick is the pool's own.

use std::net::IpAddr;
use std::sync::Arc;

use crate::chain::Route;
use crate::config::{Balance, EndpointAddress, ListenerConfig, PoolConfig};
use crate::error::Reason;
use crate::generation::Generation;
use crate::upstream::{Pick, Pool};

use super::compare::key_text;
use super::walk::Chosen;
use super::{RouteTold, Rule};

/// Where an exchange or a session goes.
pub(super) struct Routed {
    pub(super) told: RouteTold,
    pub(super) pool: Arc<Pool>,
    /// What the endpoint is called in a Host field; none when no endpoint may be used.
    pub(super) authority: Option<Arc<str>>,
}

/// The pool a filter chose, else the listener's, and the endpoint that a pool picks whose endpoints are all up.
pub(super) fn find(
    generation: &Generation,
    listener: &ListenerConfig,
    route: &Route,
    chosen: &Chosen,
    client: IpAddr,
) -> Result<Routed, Reason> {
    let index = route.pool.or(listener.pool).ok_or(Reason::NoRoute)?;
    let pool = generation.pools.get(index).ok_or(Reason::NoRoute)?.clone();
    let mut told = RouteTold {
        pool: pool.config.name.to_string(),
        chosen_by: route.pool.and(chosen.pool.clone()),
        endpoint: None,
        rule: Rule::NoEndpoint,
        because: String::new(),
        of: pool.members().iter().filter(|m| m.weight > 0).count(),
    };
    if let Some((names, authority)) = unresolved(&pool.config) {
        told.rule = Rule::Unresolved;
        told.of = 0;
        told.because = format!("a running server looks {names} up");
        return Ok(Routed {
            told,
            pool,
            authority: Some(authority),
        });
    }
    let pick = Pick {
        sticky: route.sticky_key.as_deref(),
        hint: route.endpoint.as_deref(),
        client,
        exclude: &[],
    };
    let authority = match pool.pick(&pick) {
        Err(error) => {
            told.because = error.to_string();
            None
        }
        Ok(lease) => {
            let endpoint = &lease.endpoint;
            (told.rule, told.because) = rule(&pool.config, &pick, chosen, &endpoint.text, told.of);
            // By lot it may as well be another one.
            told.endpoint = (told.rule != Rule::Random).then(|| endpoint.text.to_string());
            Some(endpoint.authority.clone())
        }
    };
    Ok(Routed {
        told,
        pool,
        authority,
    })
}

/// What decided that it is `endpoint`, one of `of`.
fn rule(
    pool: &PoolConfig,
    pick: &Pick<'_>,
    chosen: &Chosen,
    endpoint: &str,
    of: usize,
) -> (Rule, String) {
    let filter = |name: &Option<String>| format!("filter \"{}\"", name.as_deref().unwrap_or(""));
    if pick.hint == Some(endpoint) {
        return (Rule::Hint, format!("{} names it", filter(&chosen.endpoint)));
    }
    let (rule, mut because) = match (pick.sticky, pool.balance) {
        _ if of == 1 => (Rule::OnlyEndpoint, "the pool's only endpoint".to_owned()),
        (Some(key), _) => (
            Rule::StickyKey,
            format!(
                "by the sticky key \"{}\" of {}",
                key_text(key),
                filter(&chosen.key)
            ),
        ),
        (None, Balance::Hash) => (
            Rule::ClientHash,
            format!("balance: hash, by the client's address {}", pick.client),
        ),
        (None, Balance::RoundRobin) => (
            Rule::RoundRobin,
            format!(
                "balance: round-robin, the first turn of {of} endpoints; a running server is at its own"
            ),
        ),
        (None, Balance::Random) => (
            Rule::Random,
            format!("balance: random, one of {of} endpoints"),
        ),
        (None, Balance::LeastRequest) => (
            Rule::LeastRequest,
            format!(
                "balance: least-request, with nothing running on any of {of} endpoints; \
                 a running server takes the least busy"
            ),
        ),
    };
    if let Some(hint) = pick.hint {
        because.push_str(&format!(
            "; {} names {hint}, which is not an endpoint of the pool",
            filter(&chosen.endpoint)
        ));
    }
    (rule, because)
}

/// The host names among the endpoints, and how the first is called in a Host field; none when all are addresses.
fn unresolved(config: &PoolConfig) -> Option<(String, Arc<str>)> {
    let names: Vec<String> = config
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Name { host, port } => Some(format!("{host}:{port}")),
            EndpointAddress::Ip(_) | EndpointAddress::Handler { .. } => None,
        })
        .collect();
    let first = names.first()?.as_str().into();
    Some((names.join(" and "), first))
}
