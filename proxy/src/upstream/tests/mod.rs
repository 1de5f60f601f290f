//! Pools as workers see them.

mod changes;
mod failing;
mod picks;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    Balance, CheckConfig, CheckKind, EndpointAddress, EndpointConfig, HostPolicy, Panic,
    PoolConfig, PoolProtocol,
};

/// A pool of `10.0.0.N:80` with the given weights; never dialled.
pub fn config(weights: &[u32], balance: Balance) -> PoolConfig {
    let endpoints = (1u8..).zip(weights).map(|(n, &weight)| EndpointConfig {
        address: EndpointAddress::Ip(([10, 0, 0, n], 80).into()),
        weight,
        at: Default::default(),
    });
    PoolConfig {
        name: "web".into(),
        at: Default::default(),
        endpoints: endpoints.collect(),
        balance,
        check: None,
        protocol: PoolProtocol::Http1,
        tls: None,
        connect_timeout: Duration::from_secs(5),
        keep_alive_max: 256,
        keep_alive_timeout: Duration::from_secs(60),
        http2: Default::default(),
        tcp_user_timeout: None,
        limits: Default::default(),
        max_connections: None,
        retries: 2,
        panic: Panic::Fail,
        handler: Default::default(),
        resolve_interval: Duration::from_secs(30),
        resolve_grace: None,
        name_servers: Vec::new(),
        host: HostPolicy::Preserve,
    }
}

pub fn check(kind: CheckKind) -> CheckConfig {
    CheckConfig {
        kind,
        interval: Duration::from_millis(20),
        fast_interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        rise: 2,
        fall: 3,
    }
}

pub fn by(client: u8) -> Pick<'static> {
    Pick {
        sticky: None,
        hint: None,
        client: IpAddr::from(Ipv4Addr::new(192, 0, 2, client)),
        exclude: &[],
    }
}

fn pool(config: PoolConfig) -> (Arc<Pool>, Arc<Registry>) {
    let registry = Registry::new();
    (
        Pool::from_config(&Arc::new(config), None, &registry),
        registry,
    )
}

fn reload(
    pool: &Arc<Pool>,
    registry: &Arc<Registry>,
    change: impl FnOnce(&mut PoolConfig),
) -> Arc<Pool> {
    let mut config = PoolConfig::clone(&pool.config);
    change(&mut config);
    Pool::from_config(&Arc::new(config), Some(pool), registry)
}

/// How many of `n` picks one after the other each endpoint gets, in the order of the configuration.
fn shares(pool: &Pool, n: usize) -> Vec<usize> {
    let mut counts: HashMap<EndpointId, usize> = HashMap::new();
    for _ in 0..n {
        *counts
            .entry(pool.pick(&by(1)).unwrap().endpoint.id)
            .or_default() += 1;
    }
    let members = pool.members();
    let count = |m: &Member| counts.get(&m.endpoint.id).copied().unwrap_or(0);
    members.iter().map(count).collect()
}

fn text(pool: &Pool, pick: &Pick<'_>) -> String {
    pool.pick(pick).unwrap().endpoint.text.to_string()
}

fn endpoint(pool: &Pool, n: usize) -> Arc<Endpoint> {
    Arc::clone(&pool.members()[n].endpoint)
}

/// Makes exchanges on endpoint `n` fail, through a hint so that nothing else is touched.
fn fail(pool: &Pool, n: usize, times: usize) {
    let name = endpoint(pool, n).text.clone();
    for _ in 0..times {
        let pick = Pick {
            hint: Some(&name),
            ..by(1)
        };
        let lease = pool.pick(&pick).unwrap();
        assert_eq!(lease.endpoint.text, name);
        lease.failed(Failure::Connect);
    }
}
