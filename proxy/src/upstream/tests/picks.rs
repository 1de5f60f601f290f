//! Who is picked when everybody is well.

use std::collections::HashMap;
use std::time::Duration;

use super::{by, config, endpoint, pool, shares, text};
use crate::config::Balance;
use crate::upstream::{Lease, Pick, PickError, Pool};

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
    let (pool, registry) = pool(config(&[1, 1], Balance::RoundRobin));
    let retries = |pool: &Pool| (0..1000).take_while(|_| pool.may_retry()).count();
    assert_eq!(retries(&pool), 10, "at first");
    for _ in 0..50 {
        pool.pick(&by(1)).unwrap().succeeded();
    }
    assert_eq!(retries(&pool), 10, "one for five tries");
    registry.advance(Duration::from_secs(2));
    assert_eq!(retries(&pool), 6, "three a second");
}
