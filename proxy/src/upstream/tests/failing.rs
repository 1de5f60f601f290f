//! What failures, checks and operators do to picks.

use std::time::Duration;

use super::{by, check, config, endpoint, fail, pool, reload, shares, text};
use crate::config::{Balance, CheckKind, Panic};
use crate::upstream::{AdminState, Failure, Pick, PickError, Pool, State};

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

/// What checks would find, all of them at once.
fn found(pool: &Pool, passed: bool) {
    for n in 0..pool.members().len() {
        let standing = &endpoint(pool, n).standing;
        match passed {
            true => standing.check_passed(true, 2, 1),
            false => standing.check_failed(true, 3, "refused"),
        };
    }
    pool.lineage.changed();
}

#[test]
fn checked_pools_doubt_by_exchanges_and_keep_somebody() {
    let mut config = config(&[1; 4], Balance::RoundRobin);
    config.check = Some(check(CheckKind::Tcp));
    let (pool, _) = pool(config);
    assert!(!pool.is_settled());
    found(&pool, true);
    assert!(pool.is_available() && pool.is_settled());
    let doubted = |pool: &Pool| {
        let report = pool.report();
        report.iter().filter(|r| r.state == State::Doubted).count()
    };
    fail(&pool, 0, 2);
    assert_eq!(doubted(&pool), 0);
    fail(&pool, 0, 1);
    assert_eq!(shares(&pool, 9), [0, 3, 3, 3]);
    fail(&pool, 1, 3);
    assert_eq!(shares(&pool, 8), [0, 0, 4, 4]);
    fail(&pool, 2, 3);
    assert_eq!(shares(&pool, 8), [0, 0, 4, 4], "no more than half");
    assert_eq!(doubted(&pool), 2);
    // Those that checks take down are no longer doubted, and what is left is used.
    for n in [2, 3] {
        endpoint(&pool, n).standing.check_failed(true, 3, "refused");
    }
    pool.lineage.changed();
    assert_eq!(shares(&pool, 8), [4, 4, 0, 0]);
    assert_eq!(endpoint(&pool, 0).downs() + endpoint(&pool, 2).downs(), 2);
}

#[test]
fn the_only_endpoint_stays_while_its_checks_pass() {
    let mut config = config(&[1, 1], Balance::RoundRobin);
    config.check = Some(check(CheckKind::Tcp));
    let (pool, _) = pool(config);
    found(&pool, true);
    endpoint(&pool, 1).operate(AdminState::Disabled);
    fail(&pool, 0, 100);
    assert_eq!(shares(&pool, 10), [10, 0]);
    assert_eq!(pool.report()[0].state, State::Up);
}

#[test]
fn one_client_doubts_and_ejects_nobody() {
    for checks in [true, false] {
        let mut config = config(&[1, 1], Balance::RoundRobin);
        config.check = checks.then(|| check(CheckKind::Tcp));
        let (pool, _) = pool(config);
        if checks {
            found(&pool, true);
        }
        (0..4).for_each(|_| pool.pick(&by(9)).unwrap().succeeded());
        let broken = |client: u8| pool.pick(&by(client)).unwrap().failed(Failure::Broken);
        (0..100).for_each(|_| broken(1));
        assert_eq!(shares(&pool, 10), [5, 5], "checks: {checks}");
        (1..=6).for_each(broken);
        assert!(shares(&pool, 10).contains(&0), "checks: {checks}");
    }
}

#[test]
fn a_pool_that_checks_empty_panics_as_told() {
    for (panic, expected) in [
        (Panic::Fail, Err(PickError::NoHealthy)),
        (Panic::Spread, Ok(())),
    ] {
        let mut config = config(&[1, 1], Balance::RoundRobin);
        config.check = Some(check(CheckKind::Tcp));
        config.panic = panic;
        let (pool, _) = pool(config);
        found(&pool, true);
        assert_eq!(shares(&pool, 10), [5, 5]);
        found(&pool, false);
        assert_eq!(pool.pick(&by(1)).map(drop), expected);
        assert!(pool.report().iter().all(|r| r.state == State::Down));
        assert_eq!(pool.report()[0].error.as_deref(), Some("refused"));
        if panic == Panic::Spread {
            assert_eq!(shares(&pool, 10), [5, 5]);
            pool.pick(&by(1)).unwrap().succeeded();
            assert!(
                pool.report().iter().all(|r| r.state == State::Down),
                "success raises nobody"
            );
        }
        // One whose last check passed is better than none.
        endpoint(&pool, 1).standing.check_passed(false, 2, 1);
        pool.lineage.changed();
        assert_eq!(shares(&pool, 10), [0, 10]);
    }
}

#[test]
fn an_undecided_endpoint_waits_while_others_serve() {
    let mut config = config(&[1, 1], Balance::RoundRobin);
    config.check = Some(check(CheckKind::Tcp));
    let (pool, _) = pool(config);
    assert_eq!(shares(&pool, 10), [5, 5], "nobody else is there");
    endpoint(&pool, 0).standing.check_passed(false, 2, 1);
    pool.lineage.changed();
    assert_eq!(shares(&pool, 10), [10, 0]);
}

#[test]
fn operators_and_weight_zero_keep_new_traffic_away() {
    let (pool, registry) = pool(config(&[1, 1, 1, 0], Balance::RoundRobin));
    endpoint(&pool, 0).operate(AdminState::Draining);
    endpoint(&pool, 1).operate(AdminState::Disabled);
    assert_eq!(shares(&pool, 10), [0, 0, 10, 0]);
    let hint = |text| Pick {
        hint: Some(text),
        ..by(1)
    };
    assert_eq!(text(&pool, &hint("10.0.0.1:80")), "10.0.0.1:80");
    assert_eq!(text(&pool, &hint("10.0.0.2:80")), "10.0.0.3:80");
    assert_eq!(text(&pool, &hint("10.0.0.4:80")), "10.0.0.4:80");
    endpoint(&pool, 2).operate(AdminState::Draining);
    assert_eq!(pool.pick(&by(1)).err(), Some(PickError::NoHealthy));
    let reloaded = reload(&pool, &registry, |c| c.retries = 0);
    assert_eq!(reloaded.state(&endpoint(&reloaded, 1)), State::Disabled);
    endpoint(&pool, 1).operate(AdminState::Enabled);
    assert_eq!(shares(&reloaded, 10), [0, 10, 0, 0], "both pools notice");
    assert_eq!(shares(&pool, 10), [0, 10, 0, 0]);
}
