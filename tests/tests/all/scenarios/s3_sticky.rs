//! A client stays with its endpoint, whatever the protocol, and a reload does not part them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, get, get_from};
use sluicegate_tests::proxy::Proxy;

use super::{clients, expected, shares};

/// Enough that all of them on one of two endpoints is no accident.
const CLIENTS: u8 = 60;

#[test]
fn one_http_client_is_served_by_one_endpoint() {
    let (web1, web2) = (Backend::http("web1"), Backend::http("web2"));
    one_client_one_endpoint("http", &web1, &web2, |bind| {
        get(bind, "/").expect("an answer").text()
    });
}

#[test]
fn one_tcp_client_is_served_by_one_endpoint() {
    let (web1, web2) = (Backend::tcp("web1"), Backend::tcp("web2"));
    one_client_one_endpoint("tcp", &web1, &web2, |bind| text(Raw::connect(bind)));
}

#[test]
fn other_http_clients_may_be_served_by_the_other_and_keep_theirs_over_reloads() {
    let backends = ["web1", "web2", "web3"].map(Backend::http);
    clients_keep_theirs("http", &backends, |client, bind| {
        get_from(client, bind, "/").expect("an answer").text()
    });
}

#[test]
fn other_tcp_clients_may_be_served_by_the_other_and_keep_theirs_over_reloads() {
    let backends = ["web1", "web2", "web3"].map(Backend::tcp);
    clients_keep_theirs("tcp", &backends, |client, bind| {
        text(Raw::connect_from(client, bind))
    });
}

fn one_client_one_endpoint(
    protocol: &str,
    web1: &Backend,
    web2: &Backend,
    ask: impl Fn(SocketAddr) -> String,
) {
    let bind = Addresses::new().free();
    let endpoints = [web1.address(), web2.address()];
    let proxy = Proxy::start(&sticky(protocol, bind, &endpoints, ""));
    let first = ask(bind);
    let before = shares((0..1000).map(|_| ask(bind)));
    assert_eq!(before, expected(&[(&first, 1000)]));

    // A new endpoint elsewhere changes nothing here.
    let elsewhere = format!("  other: {{endpoints: [\"{}\"]}}\n", web1.address());
    let answer = proxy.reload(&sticky(protocol, bind, &endpoints, &elsewhere));
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let after = shares((0..1000).map(|_| ask(bind)));
    assert_eq!(after, expected(&[(&first, 1000)]));
}

fn clients_keep_theirs(
    protocol: &str,
    backends: &[Backend; 3],
    ask: impl Fn(IpAddr, SocketAddr) -> String,
) {
    let bind = Addresses::new().free();
    let [web1, web2, web3] = backends.each_ref().map(Backend::address);
    let all = || -> HashMap<IpAddr, String> {
        clients(CLIENTS)
            .map(|client| (client, ask(client, bind)))
            .collect()
    };
    let proxy = Proxy::start(&sticky(protocol, bind, &[web1, web2], ""));
    let before = all();
    let spread = shares(before.values().cloned());
    assert!(
        spread.len() == 2 && spread.values().all(|&n| n > 10),
        "{spread:?}"
    );
    assert_eq!(all(), before, "each client has its endpoint");

    let reload = |endpoints: &[SocketAddr], more: &str| {
        let answer = proxy.reload(&sticky(protocol, bind, endpoints, more));
        assert_eq!(answer.code, 0, "{}", answer.stderr);
    };
    reload(
        &[web1, web2],
        &format!("  other: {{endpoints: [\"{web3}\"]}}\n"),
    );
    assert_eq!(all(), before, "an endpoint of another pool");

    reload(&[web1, web2, web3], "");
    let after = all();
    let moved: Vec<_> = clients(CLIENTS)
        .filter(|client| after[client] != before[client])
        .collect();
    let to_the_new = moved
        .iter()
        .filter(|client| after[*client] == "web3")
        .count();
    // A third is the new endpoint's share; a table of hashes moves a few more.
    assert!((5..=35).contains(&to_the_new), "{to_the_new} of {CLIENTS}");
    assert!(
        moved.len() - to_the_new <= 5,
        "{} moved, {to_the_new} to web3",
        moved.len()
    );

    reload(&[web1, web2], "");
    assert_eq!(all(), before, "the same endpoints as at first");
}

fn sticky(protocol: &str, bind: SocketAddr, endpoints: &[SocketAddr], more_pools: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "\
pools:
  web: {{endpoints: [{}]}}
{more_pools}listeners:
  - name: front
    bind: {bind}
    protocol: {protocol}
    filters: [{{module: builtin:sticky, settings: {{by: source}}}}]
    pool: web
",
        endpoints.join(", ")
    )
}

fn text(mut raw: Raw) -> String {
    let bytes = raw.to_end().expect("a greeting");
    String::from_utf8(bytes).expect("text")
}
