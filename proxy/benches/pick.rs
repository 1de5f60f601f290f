//! What one pick and its lease cost, for each balance, alone and with another thread picking from the same pool.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate::config::{
    Balance, EndpointAddress, EndpointConfig, HostPolicy, Panic, PoolConfig, PoolProtocol,
};
use sluicegate::upstream::{Pick, Pool, Registry};

fn pool(balance: Balance, endpoints: u8) -> Arc<Pool> {
    let endpoints = (1..=endpoints).map(|n| EndpointConfig {
        address: EndpointAddress::Ip(([10, 0, 0, n], 80).into()),
        weight: 1,
        at: Default::default(),
    });
    let config = PoolConfig {
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
    };
    Pool::from_config(&Arc::new(config), None, &Registry::new())
}

fn picks(c: &mut Criterion) {
    let plain = Pick {
        sticky: None,
        hint: None,
        client: IpAddr::from(Ipv4Addr::LOCALHOST),
        exclude: &[],
    };
    let sticky = Pick {
        sticky: Some(b"0123456789abcdef"),
        ..plain
    };
    let hint = Pick {
        hint: Some("10.0.0.3:80"),
        ..plain
    };
    let cases = [
        ("round-robin", Balance::RoundRobin, 4, plain),
        ("random", Balance::Random, 4, plain),
        ("least-request of 4", Balance::LeastRequest, 4, plain),
        ("least-request of 64", Balance::LeastRequest, 64, plain),
        ("hash", Balance::Hash, 4, plain),
        ("sticky key", Balance::RoundRobin, 4, sticky),
        ("hint", Balance::RoundRobin, 64, hint),
    ];
    for (name, balance, endpoints, pick) in cases {
        let pool = pool(balance, endpoints);
        c.bench_function(name, |b| b.iter(|| black_box(pool.pick(black_box(&pick)))));
    }

    let pool = pool(Balance::RoundRobin, 4);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = black_box(pool.pick(&plain));
            }
        });
        c.bench_function("round-robin, contended", |b| {
            b.iter(|| black_box(pool.pick(black_box(&plain))));
        });
        stop.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, picks);
criterion_main!(benches);
