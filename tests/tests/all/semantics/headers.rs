//! Hop-by-hop fields and filters: who sees what, and in which order.

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::curl;

use crate::rig::Plan;

/// Writes into `x-saw` what filters see of the fields that are to be gone before them.
const LOOK: &str = "filters: [{module: \"builtin:headers\", settings: {request: [{set: x-saw, value: \"\
    <${header:connection}><${header:x-named}><${header:keep-alive}><${header:te}><${header:upgrade}>\
    <${header:proxy-authorization}><${header:transfer-encoding}><${header:http2-settings}><${header:proxy-connection}>\
    <${header:x-kept}>\"}]}}]";

#[test]
fn removal_runs_before_filters() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).listener(LOOK).run();
    rig.ask(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nX-Kept: 2\r\n\
         Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: b\r\nProxy-Connection: c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("x-saw"), Some("<><><><><><><><><><2>"));
    assert_eq!(got.field("te"), Some("trailers"));
}

#[test]
fn te_trailers_is_made_anew_only_for_clients_that_take_them() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for (sent, expected) in [
        ("TE: trailers", Some("trailers")),
        ("TE: gzip;q=0.5, Trailers", Some("trailers")),
        ("TE: gzip", None),
        ("TE: trailers-not", None),
        ("X: y", None),
    ] {
        rig.ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{sent}\r\n\r\n"));
        let got = backend.take_received().remove(0);
        assert_eq!(got.field("te"), expected, "{sent}");
        assert_eq!(got.field("connection"), expected.map(|_| "te"), "{sent}");
    }
    let url = rig.url("/");
    let done = curl(&["--http2-prior-knowledge", "-H", "TE: trailers", &url]);
    assert_eq!(done.body, "web1", "{done:?}");
    assert_eq!(
        backend.take_received()[0].field("te"),
        Some("trailers"),
        "HTTP/2"
    );
}

#[test]
fn forwarding_fields_are_written_after_request_filters_and_what_these_set_stays() {
    let backend = Backend::http("web1");
    let look = "filters: [{module: \"builtin:headers\", settings: {request: [\
                {set: x-saw, value: \"<${header:x-forwarded-for}><${header:via}>\"}, {set: x-forwarded-proto, value: https},\
                {set: x-real-ip, value: 192.0.2.77}]}}]";
    for trust in ["", "trusted-proxies: [127.0.0.0/8]"] {
        let plan = Plan::new(&[backend.address()]);
        let rig = plan.listener(look).listener(trust).run();
        rig.ask("GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 6.6.6.6\r\n\r\n");
        let got = backend.take_received().remove(0);
        for (name, value) in [
            ("x-saw", "<><>"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "192.0.2.77"),
            ("via", "1.1 sluicegate"),
        ] {
            assert_eq!(got.field(name), Some(value), "{name} with {trust:?}");
        }
    }
}

#[test]
fn via_names_the_version_a_message_came_in() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).listener("via: edge").run();
    rig.ask("GET / HTTP/1.0\r\nVia: 1.1 first\r\n\r\n");
    let got = backend.take_received().remove(0);
    let via: Vec<_> = got.fields("via").collect();
    assert_eq!(via, ["1.1 first", "1.0 edge"]);
    let done = curl(&["-i", "--http2-prior-knowledge", &rig.url("/")]);
    assert!(done.body.contains("via: 1.1 edge\r\n"), "{}", done.body);
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("via"), Some("2 edge"));
}
