//! Host and target: which host a request is for, and what path.

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::curl;

use crate::rig::Plan;

#[test]
fn absolute_form_may_have_an_empty_path() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for (line, host, target) in [
        ("GET http://inner?q=1", "inner", "/?q=1"),
        ("GET http://inner:8080?a=/b?c", "inner:8080", "/?a=/b?c"),
        ("GET http://inner?", "inner", "/?"),
        ("GET http://inner", "inner", "/"),
        ("GET HTTP://inner/p?q", "inner", "/p?q"),
        ("OPTIONS http://inner", "inner", "*"),
        ("OPTIONS http://inner?q", "inner", "/?q"),
        ("OPTIONS *", "outer", "*"),
    ] {
        let answer = rig.ask(format!("{line} HTTP/1.1\r\nHost: outer\r\n\r\n"));
        assert_eq!(answer.status, 200, "{line}");
        let got = backend.take_received().remove(0);
        assert_eq!(
            (got.field("host"), got.target()),
            (Some(host), target),
            "{line}"
        );
    }
    for line in [
        "GET http://?q",
        "GET http:///p",
        "GET ?q",
        "GET ftp://inner?q",
        "GET http://u@inner?q",
    ] {
        let answer = rig.ask(format!("{line} HTTP/1.1\r\nHost: outer\r\n\r\n"));
        assert_eq!(answer.status, 400, "{line}");
    }
    assert!(backend.received().is_empty());
}

#[test]
fn predicates_and_routes_see_the_path_that_is_sent() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:router\", settings: {rules: \
             [{match: {path: /}, redirect: {location: \"http://root/\"}}], default: {pool: web}}}]",
        )
        .run();
    let answer = rig.ask("GET http://inner?q HTTP/1.1\r\nHost: outer\r\n\r\n");
    assert_eq!(answer.field("location"), Some("http://root/"));
}

#[test]
fn a_host_that_a_filter_sets_wins_over_the_clients_and_the_pools_over_both() {
    let backend = Backend::http("web1");
    let route =
        "filters: [{module: \"builtin:router\", settings: {rules: [{host: routed, pool: web}]}}]";
    for (pool, expected) in [("", "routed"), ("host: fixed", "fixed")] {
        let plan = Plan::new(&[backend.address()]).pool(pool);
        let rig = plan.listener(route).run();
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let done = curl(&[version, &rig.url("/")]);
            assert_eq!(done.body, "web1", "{done:?}");
            let got = backend.take_received().remove(0);
            assert_eq!(got.field("host"), Some(expected), "{version} {pool}");
        }
    }
}
