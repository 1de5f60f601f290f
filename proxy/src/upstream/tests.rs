//! Pools as workers see them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    Balance, CheckConfig, CheckKind, EndpointAddress, EndpointConfig, HostPolicy, Panic, PoolConfig,
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
        connect_timeout: Duration::from_secs(5),
        keep_alive_max: 256,
        keep_alive_timeout: Duration::from_secs(60),
        max_connections: None,
        retries: 2,
        panic: Panic::Fail,
        resolve_interval: Duration::from_secs(30),
        host: HostPolicy::Preserve,
    }
}

pub fn check(kind: CheckKind) -> CheckConfig {
    CheckConfig {
        kind,
        interval: Duration::from_millis(20),
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

#[test]
fn round_robin_is_exact_over_any_number_of_threads() {
    for threads in 1..=8 {
        let (pool, _) = pool(config(&[1, 1, 1], Balance::RoundRobin));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..1000).for_each(|_| drop(pool.pick(&by(1)).unwrap())));
            }
        });
        let picks: Vec<_> = pool.members().iter().map(|m| m.endpoint.picks()).collect();
        assert_eq!(picks.iter().sum::<u64>(), threads * 1000);
        let spread = picks.iter().max().unwrap() - picks.iter().min().unwrap();
        assert!(spread <= 1, "{threads} threads: {picks:?}");
        assert_eq!(pool.active(), 0);
    }
}

#[test]
fn weights_are_exact_over_a_cycle() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest] {
        let (pool, _) = pool(config(&[2, 4, 0, 6], balance));
        assert_eq!(shares(&pool, 600), [100, 200, 0, 300], "{balance:?}");
    }
    let (pool, _) = pool(config(&[1, 3], Balance::Random));
    let random = shares(&pool, 4000);
    assert!(random[0].abs_diff(1000) < 200, "{random:?}");
}

#[test]
fn round_robin_stays_exact_when_health_changes() {
    let (pool, registry) = pool(config(&[1; 4], Balance::RoundRobin));
    assert_eq!(shares(&pool, 101).iter().max(), Some(&26));
    fail(&pool, 1, 3);
    let mut rest = shares(&pool, 100);
    assert_eq!(rest.remove(1), 0);
    assert!(rest.iter().all(|n| [33, 34].contains(n)), "{rest:?}");
    registry.advance(Duration::from_secs(11));
    assert_eq!(shares(&pool, 100), [25; 4]);
}

#[test]
fn a_failing_endpoint_does_not_burden_its_neighbour() {
    let (pool, _) = pool(config(&[1; 3], Balance::RoundRobin));
    let dead = endpoint(&pool, 0).id;
    let mut retried = HashMap::new();
    for _ in 0..300 {
        let first = pool.pick(&by(1)).unwrap().endpoint.id;
        if first == dead {
            let again = Pick {
                exclude: &[dead],
                ..by(1)
            };
            *retried
                .entry(pool.pick(&again).unwrap().endpoint.id)
                .or_insert(0) += 1;
        } else {
            *retried.entry(first).or_insert(0) += 1;
        }
    }
    let counts: Vec<i32> = retried.into_values().collect();
    assert_eq!(counts.len(), 2);
    assert!((counts[0] - counts[1]).abs() <= 1, "{counts:?}");
}

#[test]
fn least_request_goes_where_least_runs() {
    let (pool, _) = pool(config(&[1, 1, 2], Balance::LeastRequest));
    let leases: Vec<_> = (0..8).map(|_| pool.pick(&by(1)).unwrap()).collect();
    let active: Vec<_> = (0..3).map(|n| endpoint(&pool, n).active()).collect();
    assert_eq!(active, [2, 2, 4]);
    let kept: Vec<_> = leases
        .into_iter()
        .filter(|l| l.endpoint.id != endpoint(&pool, 1).id)
        .collect();
    assert_eq!(text(&pool, &by(1)), "10.0.0.2:80");
    drop(kept);
    assert_eq!(pool.active(), 0);
}

#[test]
fn a_fast_failure_attracts_nothing() {
    let (pool, registry) = pool(config(&[1, 1], Balance::LeastRequest));
    let busy: Vec<_> = (0..8).map(|_| pool.pick(&by(1)).unwrap()).collect();
    let bad = endpoint(&pool, 0).id;
    let mut failures = 0;
    let mut served = Vec::new();
    for _ in 0..100 {
        let lease = pool.pick(&by(1)).unwrap();
        if lease.endpoint.id == bad {
            lease.failed(Failure::Answer);
            failures += 1;
        } else {
            served.push(lease);
        }
    }
    assert!(failures <= 52, "{failures}: it looked idle");
    drop((busy, served));
    registry.advance(Duration::from_secs(60));
    let after = shares(&pool, 100);
    assert_eq!(after, [50, 50]);
}

#[test]
fn sticky_keys_win_over_any_balance_and_hints_over_keys() {
    let balances = [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::Hash,
    ];
    for balance in balances {
        let (pool, _) = pool(config(&[1; 5], balance));
        let key = Pick {
            sticky: Some(b"alice"),
            ..by(1)
        };
        let first = text(&pool, &key);
        assert!((0..50).all(|n| text(
            &pool,
            &Pick {
                sticky: key.sticky,
                ..by(n)
            }
        ) == first));
        let other = if first == "10.0.0.3:80" {
            "10.0.0.4:80"
        } else {
            "10.0.0.3:80"
        };
        let hint = Pick {
            hint: Some(other),
            ..key
        };
        assert_eq!(text(&pool, &hint), other);
        for unknown in ["10.9.9.9:80", "", "web1", "10.0.0.3"] {
            let hint = Pick {
                hint: Some(unknown),
                ..key
            };
            assert_eq!(text(&pool, &hint), first);
        }
        let tried = [pool.pick(&hint).unwrap().endpoint.id];
        let again = Pick {
            exclude: &tried,
            ..hint
        };
        assert_eq!(
            text(&pool, &again),
            first,
            "the key decides when the hint was tried"
        );
    }
}

#[test]
fn hash_goes_by_the_client_and_survives_everything() {
    let (pool, registry) = pool(config(&[1; 5], Balance::Hash));
    let map = |pool: &Pool| -> Vec<String> { (0..100).map(|n| text(pool, &by(n))).collect() };
    let before = map(&pool);
    let mapped = by(7);
    let v6 = Pick {
        client: "::ffff:192.0.2.7".parse().unwrap(),
        ..mapped
    };
    assert_eq!(text(&pool, &mapped), text(&pool, &v6));

    let reordered = reload(&pool, &registry, |c| c.endpoints.reverse());
    assert_eq!(map(&reordered), before);
    let (elsewhere, _) = self::pool(PoolConfig::clone(&pool.config));
    assert_eq!(map(&elsewhere), before, "another process agrees");

    fail(&pool, 2, 3);
    for (now, then) in map(&pool).iter().zip(&before) {
        assert!(now == then || then == "10.0.0.3:80");
        assert_ne!(now, "10.0.0.3:80");
    }
}

#[test]
fn retries_prefer_another_endpoint() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::Hash,
    ] {
        let (pool, _) = pool(config(&[1, 1, 1], balance));
        let mut tried = Vec::new();
        for _ in 0..3 {
            let id = pool
                .pick(&Pick {
                    exclude: &tried,
                    ..by(1)
                })
                .unwrap()
                .endpoint
                .id;
            assert!(!tried.contains(&id), "{balance:?}");
            tried.push(id);
        }
        assert!(
            pool.pick(&Pick {
                exclude: &tried,
                ..by(1)
            })
            .is_ok(),
            "better than nothing"
        );
    }
}

#[test]
fn limits_hold_under_a_race() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::Hash,
    ] {
        let mut config = config(&[1, 1, 1], balance);
        config.max_connections = Some(5);
        let (pool, _) = pool(config);
        let leases: Vec<Lease> = std::thread::scope(|scope| {
            let take = || {
                (0..100)
                    .filter_map(|_| pool.pick(&by(1)).ok())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        assert_eq!(leases.len(), 15, "{balance:?}");
        assert!(pool.members().iter().all(|m| m.endpoint.active() == 5));
        assert_eq!(pool.pick(&by(1)).err(), Some(PickError::Overload));
        drop(leases);
        assert_eq!(pool.active(), 0);
        assert!(pool.pick(&by(1)).is_ok());
    }
}

#[test]
fn ejection_stops_at_half_the_pool() {
    for (size, out) in [(1, 0), (2, 1), (3, 1), (5, 2)] {
        let (pool, registry) = pool(config(&vec![1; size], Balance::RoundRobin));
        (0..size).for_each(|n| {
            for _ in 0..3 {
                let id = endpoint(&pool, n).id;
                let members = pool.members();
                let others: Vec<_> = members
                    .iter()
                    .map(|m| m.endpoint.id)
                    .filter(|&o| o != id)
                    .collect();
                pool.pick(&Pick {
                    exclude: &others,
                    ..by(1)
                })
                .unwrap()
                .failed(Failure::Connect);
            }
        });
        let ejected = |pool: &Pool| {
            pool.report()
                .iter()
                .filter(|r| r.state == State::Ejected)
                .count()
        };
        assert_eq!(ejected(&pool), out, "of {size}");
        assert_eq!(shares(&pool, 100).iter().filter(|&&n| n == 0).count(), out);
        registry.advance(Duration::from_secs(10));
        (0..size).for_each(|n| endpoint(&pool, n).standing.exchange_succeeded());
        assert_eq!(ejected(&pool), 0);
        assert!(shares(&pool, 100).iter().all(|&n| n > 0));
    }
}

#[test]
fn success_in_between_forgives_without_checks() {
    let (pool, _) = pool(config(&[1, 1], Balance::RoundRobin));
    for _ in 0..5 {
        fail(&pool, 0, 2);
        let pick = Pick {
            hint: Some("10.0.0.1:80"),
            ..by(1)
        };
        pool.pick(&pick).unwrap().succeeded();
    }
    assert_eq!(shares(&pool, 10), [5, 5]);
    assert_eq!(endpoint(&pool, 0).connect_failures(), 10);
}

#[test]
fn checked_pools_fall_by_exchanges_and_panic_as_told() {
    for (panic, expected) in [
        (Panic::Fail, Err(PickError::NoHealthy)),
        (Panic::Spread, Ok(())),
    ] {
        let mut config = config(&[1, 1], Balance::RoundRobin);
        config.check = Some(check(CheckKind::Tcp));
        config.panic = panic;
        let (pool, _) = pool(config);
        assert!(!pool.is_settled());
        for n in 0..2 {
            endpoint(&pool, n).standing.check_passed(true, 2);
        }
        pool.lineage.changed();
        assert!(pool.is_available() && pool.is_settled());
        fail(&pool, 0, 3);
        assert_eq!(shares(&pool, 10), [0, 10]);
        fail(&pool, 1, 3);
        assert_eq!(pool.pick(&by(1)).map(drop), expected);
        assert!(pool.report().iter().all(|r| r.state == State::Down));
        assert_eq!(pool.report()[0].error.as_deref(), Some("cannot be dialled"));
        if panic == Panic::Spread {
            assert_eq!(shares(&pool, 10), [5, 5]);
            pool.pick(&by(1)).unwrap().succeeded();
            assert!(
                pool.report().iter().all(|r| r.state == State::Down),
                "success raises nobody"
            );
        }
    }
}

#[test]
fn an_undecided_endpoint_waits_while_others_serve() {
    let mut config = config(&[1, 1], Balance::RoundRobin);
    config.check = Some(check(CheckKind::Tcp));
    let (pool, _) = pool(config);
    assert_eq!(shares(&pool, 10), [5, 5], "nobody else is there");
    endpoint(&pool, 0).standing.check_passed(false, 2);
    pool.lineage.changed();
    assert_eq!(shares(&pool, 10), [10, 0]);
}

#[test]
fn operators_and_weight_zero_keep_new_traffic_away() {
    let (pool, registry) = pool(config(&[1, 1, 1, 0], Balance::RoundRobin));
    endpoint(&pool, 0).operate(Operator::Draining);
    endpoint(&pool, 1).operate(Operator::Disabled);
    assert_eq!(shares(&pool, 10), [0, 0, 10, 0]);
    let hint = |text| Pick {
        hint: Some(text),
        ..by(1)
    };
    assert_eq!(text(&pool, &hint("10.0.0.1:80")), "10.0.0.1:80");
    assert_eq!(text(&pool, &hint("10.0.0.2:80")), "10.0.0.3:80");
    assert_eq!(text(&pool, &hint("10.0.0.4:80")), "10.0.0.4:80");
    endpoint(&pool, 2).operate(Operator::Draining);
    assert_eq!(pool.pick(&by(1)).err(), Some(PickError::NoHealthy));
    let reloaded = reload(&pool, &registry, |c| c.retries = 0);
    assert_eq!(reloaded.state(&endpoint(&reloaded, 1)), State::Disabled);
    endpoint(&pool, 1).operate(Operator::Enabled);
    assert_eq!(shares(&reloaded, 10), [0, 10, 0, 0], "both pools notice");
    assert_eq!(shares(&pool, 10), [0, 10, 0, 0]);
}

#[test]
fn reload_keeps_what_stays() {
    let (pool, registry) = pool(config(&[1, 1, 1], Balance::RoundRobin));
    assert!(Arc::ptr_eq(&pool, &reload(&pool, &registry, |_| ())));
    let running = pool.pick(&by(1)).unwrap();
    fail(&pool, 1, 3);
    assert_eq!(shares(&pool, 4), [2, 0, 2]);
    let next = reload(&pool, &registry, |c| {
        c.endpoints.remove(0);
        let mut added = c.endpoints[0].clone();
        added.address = EndpointAddress::Ip("10.0.0.9:80".parse().unwrap());
        c.endpoints.push(added);
    });
    assert!(!Arc::ptr_eq(&pool, &next));
    assert_eq!(endpoint(&next, 0).id, endpoint(&pool, 1).id);
    assert_eq!(next.state(&endpoint(&next, 0)), State::Ejected);
    assert_eq!(endpoint(&next, 1).picks(), endpoint(&pool, 2).picks());
    let ids: std::collections::HashSet<_> = pool
        .members()
        .iter()
        .chain(&*next.members())
        .map(|m| m.endpoint.id)
        .collect();
    assert_eq!(ids.len(), 4, "a new endpoint has a new id");
    drop(running);
    assert_eq!(pool.active(), 0);
}

#[test]
fn names_become_endpoints() {
    let mut config = config(&[1], Balance::RoundRobin);
    config.endpoints.push(EndpointConfig {
        address: EndpointAddress::Name {
            host: "app".into(),
            port: 80,
        },
        weight: 2,
        at: Default::default(),
    });
    let (pool, registry) = pool(config);
    assert!(!pool.is_settled());
    let ips =
        |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
    let texts = |pool: &Pool| -> Vec<String> {
        let members = pool.members();
        members
            .iter()
            .map(|m| format!("{}={} x{}", m.endpoint.text, m.endpoint.authority, m.weight))
            .collect()
    };
    let app: Arc<str> = "app".into();
    pool.resolved(&app, &ips(&["10.0.0.1", "10.0.1.1", "fd00::1"]));
    pool.resolution_done();
    assert!(pool.is_settled());
    let expected = [
        "10.0.0.1:80=10.0.0.1:80 x3",
        "10.0.1.1:80=app:80 x2",
        "[fd00::1]:80=app:80 x2",
    ];
    assert_eq!(texts(&pool), expected);
    let kept = endpoint(&pool, 1).id;
    pool.resolved(&app, &ips(&["10.0.1.1", "10.0.1.2"]));
    assert_eq!(
        texts(&pool),
        [
            "10.0.0.1:80=10.0.0.1:80 x1",
            "10.0.1.1:80=app:80 x2",
            "10.0.1.2:80=app:80 x2"
        ]
    );
    assert_eq!(endpoint(&pool, 1).id, kept);
    let next = reload(&pool, &registry, |c| c.retries = 0);
    assert!(next.is_settled(), "the addresses were taken over");
    assert_eq!(texts(&next), texts(&pool));
}

#[test]
fn an_empty_pool_fails_picks_and_nothing_else() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::Hash,
    ] {
        let (pool, _) = pool(config(&[], balance));
        assert!(pool.is_settled() && !pool.is_available());
        assert_eq!(pool.pick(&by(1)).err(), Some(PickError::NoHealthy));
        assert!(pool.report().is_empty());
    }
}

#[test]
fn retries_have_a_budget() {
    let (pool, _) = pool(config(&[1, 1], Balance::RoundRobin));
    let running: Vec<_> = (0..50).map(|_| pool.pick(&by(1)).unwrap()).collect();
    let permits: Vec<_> = (0..20).map_while(|_| pool.retry()).collect();
    assert!((13..=16).contains(&permits.len()), "{}", permits.len());
    drop((permits, running));
}
