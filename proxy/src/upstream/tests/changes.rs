//! What survives reload and resolution.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{by, check, config, endpoint, fail, pool, reload, shares, text};
use crate::config::{Balance, CheckKind, EndpointAddress, EndpointConfig, PoolConfig};
use crate::upstream::comeback::Patience;
use crate::upstream::{Pick, Pool, State};

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
    let (elsewhere, _) = super::pool(PoolConfig::clone(&pool.config));
    assert_eq!(map(&elsewhere), before, "another process agrees");

    fail(&pool, 2, 3);
    for (now, then) in map(&pool).iter().zip(&before) {
        assert!(now == then || then == "10.0.0.3:80");
        assert_ne!(now, "10.0.0.3:80");
    }
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
    pool.resolved(&app, &ips(&["10.0.0.1", "10.0.1.1", "fd00::1"]), &[]);
    pool.resolution_done();
    assert!(pool.is_settled());
    let expected = [
        "10.0.0.1:80=10.0.0.1:80 x3",
        "10.0.1.1:80=app:80 x2",
        "[fd00::1]:80=app:80 x2",
    ];
    assert_eq!(texts(&pool), expected);
    let kept = endpoint(&pool, 1).id;
    pool.resolved(&app, &ips(&["10.0.1.1", "10.0.1.2"]), &[]);
    assert_eq!(
        texts(&pool),
        [
            "10.0.0.1:80=10.0.0.1:80 x1",
            "10.0.1.1:80=app:80 x2",
            "10.0.1.2:80=app:80 x2"
        ]
    );
    assert_eq!(endpoint(&pool, 1).id, kept);
    // One that may come back is the same then; one that was left is another.
    let (first, second) = (kept, endpoint(&pool, 2).id);
    pool.resolved(&app, &ips(&["10.0.1.3"]), &ips(&["10.0.1.1"]));
    pool.resolved(&app, &ips(&["10.0.1.1", "10.0.1.2"]), &[]);
    assert_eq!(endpoint(&pool, 1).id, first);
    assert_ne!(endpoint(&pool, 2).id, second);
    let next = reload(&pool, &registry, |c| c.retries = 0);
    assert!(next.is_settled(), "the addresses were taken over");
    assert_eq!(texts(&next), texts(&pool));
    // A reload while one is absent loses nothing of it.
    next.resolved(&app, &ips(&["10.0.1.2"]), &ips(&["10.0.1.1"]));
    let after = reload(&next, &registry, |c| c.retries = 1);
    assert!(after.endpoint_ids().contains(&first));
    after.resolved(&app, &ips(&["10.0.1.1", "10.0.1.2"]), &[]);
    assert_eq!(endpoint(&after, 1).id, first);
    let without = reload(&after, &registry, |c| c.endpoints.truncate(1));
    assert!(!without.endpoint_ids().contains(&first));
    // What it resolved to then is not believed later, and endpoints of another port are not waited for.
    let named = |port| EndpointConfig {
        address: EndpointAddress::Name {
            host: "app".into(),
            port,
        },
        weight: 2,
        at: Default::default(),
    };
    let again = reload(&without, &registry, |c| c.endpoints.push(named(80)));
    assert!(!again.knows(&app));
    let moved = reload(&after, &registry, |c| c.endpoints[1] = named(81));
    assert!(moved.knows(&app));
    assert!(!moved.endpoint_ids().contains(&first));
}

/// A request began before a reload, and its pool lost its endpoint: the one that replaced it learns that it is back.
#[tokio::test]
async fn whoever_waits_in_a_replaced_pool_sees_an_endpoint_come_back() {
    let mut checked = config(&[1], Balance::RoundRobin);
    checked.check = Some(check(CheckKind::Tcp));
    let (old, registry) = pool(checked);
    let endpoint = endpoint(&old, 0);
    let says = |passed: bool, told: &Pool| {
        let now = registry.now_ms();
        if passed {
            endpoint.standing.check_passed(true, 1, now);
        } else {
            endpoint.standing.check_failed(true, 1, "refused");
        }
        endpoint.lineage.changed();
        told.refresh();
    };
    says(true, &old);
    says(false, &old);
    assert!(old.pick(&by(1)).is_err());
    endpoint.standing.schedule.begin();
    let new = reload(&old, &registry, |config| config.retries = 1);
    assert!(!Arc::ptr_eq(&old, &new));
    let mut patience = Patience::default();
    let waits = old.come_back(&mut patience);
    let brings = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        says(true, &new);
    };
    let (again, ()) = tokio::join!(waits, brings);
    assert!(again);
    assert!(old.pick(&by(1)).is_ok());
}
