//! Scheme, host and port as a trusted proxy tells them: one fact for filters, redirects, cookies, calls, logs, backends
//! and `explain`.

use std::net::SocketAddr;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, Received, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::{Proxy, Start, sluicegate};

use super::components;
use super::rig::{Plan, TLS, record, with_certificate};

const TRUSTING: &str = "trusted-proxies: [127.0.0.0/8]";
/// Says what filters are told.
const SAW: &str = "filters: [{module: \"builtin:headers\", settings: {request: [{set: x-saw, \
                   value: \"${scheme}://${authority}\"}]}}]";
fn ask(bind: SocketAddr, fields: &str) -> sluicegate_tests::client::Response {
    let mut raw = Raw::connect(bind);
    raw.send(format!(
        "GET /old/a?b HTTP/1.1\r\nHost: inner:81\r\n{fields}\r\n"
    ))
    .expect("send");
    raw.response().expect("a response")
}

struct Case {
    forwarded: &'static str,
    fields: &'static str,
    origin: &'static str,
    /// `X-Forwarded-Proto`, `-Host` and `-Port` that the backend gets.
    told: [&'static str; 3],
}

const CASES: &[Case] = &[
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n",
        origin: "https://shop.test",
        told: ["https", "shop.test", "443"],
    },
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 8443\r\n",
        origin: "https://shop.test:8443",
        told: ["https", "shop.test", "8443"],
    },
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: https\r\nX-Forwarded-Host: [2001:db8::1]:444\r\n",
        origin: "https://[2001:db8::1]:444",
        told: ["https", "[2001:db8::1]:444", "444"],
    },
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: https\r\n",
        origin: "https://inner:81",
        told: ["https", "inner:81", "81"],
    },
    // What cannot be understood is told to nobody.
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a b\r\nX-Forwarded-Port: x\r\n",
        origin: "http://inner:81",
        told: ["http", "inner:81", "BIND"],
    },
    // The nearest proxy's word, not the client's.
    Case {
        forwarded: "x",
        fields: "X-Forwarded-Proto: http, https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Host: shop.test\r\n",
        origin: "https://shop.test",
        told: ["https", "shop.test", "443"],
    },
    // Proxies that append: the word of the one whose client that is.
    Case {
        forwarded: "none",
        fields: "X-Forwarded-For: 192.0.2.7, 127.0.0.9\r\nX-Forwarded-Proto: http, https, http\r\n\
                 X-Forwarded-Host: evil.test, shop.test, inner\r\n",
        origin: "https://shop.test",
        told: ["https", "shop.test", ""],
    },
    Case {
        forwarded: "rfc7239",
        fields: "Forwarded: for=192.0.2.7;proto=https;host=\"shop.test:8443\", for=127.0.0.9;proto=http;host=b\r\n",
        origin: "https://shop.test:8443",
        told: ["", "", ""],
    },
    Case {
        forwarded: "both",
        fields: "Forwarded: for=192.0.2.7;proto=https;host=shop.test\r\n",
        origin: "https://shop.test",
        told: ["https", "shop.test", "443"],
    },
    Case {
        forwarded: "both",
        fields: "Forwarded: proto=https;host=shop.test\r\nX-Forwarded-Proto: http\r\n",
        origin: "http://shop.test",
        told: ["http", "shop.test", "80"],
    },
];

#[test]
fn what_a_trusted_proxy_says_is_one_fact() {
    let backend = Backend::http("web1");
    for case in CASES {
        let rig = Plan::new(&[backend.address()])
            .listener(TRUSTING)
            .listener(&format!("forwarded: {}", case.forwarded))
            .listener(SAW)
            .run();
        assert_eq!(ask(rig.bind, case.fields).status, 200);
        let got = backend.take_received().remove(0);
        assert_eq!(got.field("x-saw"), Some(case.origin), "{}", case.fields);
        // Every hop has a `Host` of its own.
        assert_eq!(got.field("host"), Some("inner:81"));
        let port = rig.bind.port().to_string();
        for (part, expected) in ["proto", "host", "port"].iter().zip(case.told) {
            let name = format!("x-forwarded-{part}");
            let lines: Vec<_> = got.fields(&name).collect();
            assert_eq!(
                lines.join("|"),
                expected.replace("BIND", &port),
                "{name} of {}",
                case.fields
            );
        }
        let record = rig.record("/old/a?b");
        let (scheme, authority) = case.origin.split_once("://").expect("an origin");
        assert_eq!(
            (record["scheme"].as_str(), record["authority"].as_str()),
            (Some(scheme), Some(authority)),
            "{record}"
        );
    }
}

#[test]
fn what_anybody_else_says_is_dropped() {
    let backend = Backend::http("web1");
    for forwarded in ["x", "rfc7239", "both", "none"] {
        let rig = Plan::new(&[backend.address()])
            .listener("trusted-proxies: [192.0.2.0/24]")
            .listener(&format!("forwarded: {forwarded}"))
            .listener(SAW)
            .run();
        let claims = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 1\r\n\
                      Forwarded: proto=https;host=shop.test\r\n";
        assert_eq!(ask(rig.bind, claims).status, 200);
        let got = backend.take_received().remove(0);
        assert_eq!(got.field("x-saw"), Some("http://inner:81"));
        assert!(
            !got.head.contains("shop.test") && !got.head.contains("https"),
            "{}",
            got.head
        );
        assert_eq!(rig.record("/old/a?b")["scheme"], "http");
    }
}

/// A listener that trusts its peers, with these filters.
fn with_filters(backend: &Backend, filters: &str) -> (Proxy, SocketAddr) {
    let bind = Addresses::new().free();
    let yaml = format!(
        "pools:\n  web: {{endpoints: [\"{}\"]}}\n{filters}\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, {TRUSTING}, filters: [f]}}\n\
         telemetry: {{access-log: {{format: json}}}}\n",
        backend.address()
    );
    (Start::new().run(&yaml), bind)
}

#[test]
fn a_redirect_ends_where_it_leads() {
    let backend = Backend::http("web1");
    let (_proxy, bind) = with_filters(
        &backend,
        "filters: {f: {module: \"builtin:router\", settings: {rules: [{match: {}, redirect: {scheme: https}}]}}}\n",
    );
    let sent = ask(
        bind,
        "X-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.test\r\n",
    );
    assert_eq!(
        (sent.status, sent.field("location")),
        (302, Some("https://shop.test/old/a?b"))
    );
    assert_eq!(ask(bind, "X-Forwarded-Proto: https\r\n").status, 200);
    assert_eq!(ask(bind, "X-Forwarded-Proto: wss\r\n").status, 200);
    assert_eq!(ask(bind, "X-Forwarded-Proto: gopher\r\n").status, 302);
    assert_eq!(ask(bind, "").status, 302);
}

#[test]
fn a_redirect_of_the_path_keeps_scheme_host_and_port() {
    let backend = Backend::http("web1");
    let (_proxy, bind) = with_filters(
        &backend,
        "filters: {f: {module: \"builtin:router\", settings: {rules: \
         [{match: {path-prefix: /old}, redirect: {prefix: /new}}]}}}\n",
    );
    for (fields, location) in [
        ("", "http://inner:81/new/a?b"),
        ("X-Forwarded-Proto: https\r\n", "https://inner:81/new/a?b"),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 443\r\n",
            "https://shop.test/new/a?b",
        ),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: [2001:db8::1]\r\nX-Forwarded-Port: 8443\r\n",
            "https://[2001:db8::1]:8443/new/a?b",
        ),
    ] {
        assert_eq!(
            ask(bind, fields).field("location"),
            Some(location),
            "{fields}"
        );
    }
}

#[test]
fn rules_go_by_the_host_that_was_asked_for() {
    let backend = Backend::http("web1");
    let (_proxy, bind) = with_filters(
        &backend,
        "filters: {f: {module: \"builtin:router\", settings: {rules: \
         [{match: {host: shop.test}, redirect: {location: /shop}}]}}}\n",
    );
    assert_eq!(
        ask(bind, "X-Forwarded-Host: SHOP.test:8443\r\n").status,
        302
    );
    assert_eq!(ask(bind, "X-Forwarded-Host: other.test\r\n").status, 200);
}

#[test]
fn cookies_are_secure_when_the_client_came_by_https() {
    let backend = Backend::http("web1");
    let (_proxy, bind) = with_filters(
        &backend,
        "filters: {f: {module: \"builtin:sticky\", settings: {by: {cookie: {name: at, secret: \"0123456789abcdef0123456789abcdef\"}}}}}\n",
    );
    for (fields, secure) in [
        ("X-Forwarded-Proto: https\r\n", true),
        ("X-Forwarded-Proto: http\r\n", false),
        ("", false),
    ] {
        let answer = ask(bind, fields);
        let cookie = answer.field("set-cookie").expect("a cookie");
        assert_eq!(cookie.contains("; Secure"), secure, "{fields} {cookie}");
    }
}

#[test]
fn the_service_that_decides_is_told_the_same() {
    let web = Backend::http("web1");
    let auth = Backend::http_with(|_| response(200, ""));
    let bind = Addresses::new().free();
    let _proxy = Start::new().run(&format!(
        "pools:\n  web: {{endpoints: [\"{}\"]}}\n  auth: {{endpoints: [\"{}\"]}}\n\
         filters:\n  f: {{module: \"builtin:auth-request\", capabilities: [{{http-call: [auth]}}], settings: {{pool: auth, path: /verify}}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, {TRUSTING}, filters: [f]}}\n",
        web.address(),
        auth.address()
    ));
    let told = |fields: &str| -> Received {
        assert_eq!(ask(bind, fields).status, 200);
        auth.take_received().remove(0)
    };
    let question = told(
        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-For: 192.0.2.7\r\n",
    );
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-original-url", "https://shop.test/old/a?b"),
    ] {
        assert_eq!(question.field(name), Some(value), "{}", question.head);
    }
    let question = told("");
    assert_eq!(question.field("x-forwarded-proto"), Some("http"));
    assert_eq!(question.field("x-forwarded-host"), Some("inner:81"));
}

#[test]
fn a_component_that_decides_is_told_the_same() {
    for guest in [components::handler(), components::service()] {
        let web = Backend::http("web1");
        let bind = Addresses::new().free();
        let _proxy = Start::new().file("auth.wasm", guest).run(&format!(
            "pools:\n  web: {{endpoints: [\"{}\"]}}\n  auth: {{endpoints: [\"wasm:./auth.wasm\"], handler: {{}}}}\n\
             filters:\n  f:\n    module: \"builtin:auth-request\"\n    capabilities: [{{http-call: [auth]}}]\n    \
             settings: {{pool: auth, path: /fields, copy: [x-scheme]}}\n\
             listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, {TRUSTING}, filters: [f]}}\n",
            web.address()
        ));
        for (fields, scheme) in [
            ("X-Forwarded-Proto: https\r\n", "Some(Scheme::Https)"),
            ("", "Some(Scheme::Http)"),
        ] {
            assert_eq!(ask(bind, fields).status, 200);
            let asked = web.take_received().remove(0);
            assert_eq!(asked.field("x-scheme"), Some(scheme), "{}", asked.head);
        }
    }
}

#[test]
fn http2_requests_are_read_the_same() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(TRUSTING)
        .listener(SAW)
        .run();
    let done = curl(&[
        "--http2-prior-knowledge",
        "-H",
        "X-Forwarded-Proto: https",
        "-H",
        "X-Forwarded-Host: shop.test:8443",
        &rig.url("/2"),
    ]);
    assert_eq!(done.body, "web1", "{done:?}");
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("x-saw"), Some("https://shop.test:8443"));
    assert_eq!(got.field("host"), Some(rig.bind.to_string().as_str()));
    assert_eq!(got.field("x-forwarded-port"), Some("8443"));
}

#[test]
fn over_tls_a_trusted_proxy_may_say_http() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(TRUSTING)
        .listener(SAW)
        .listener(TLS)
        .run_with(with_certificate(Start::new()));
    let url = format!("https://{}/t", rig.bind);
    for (fields, scheme) in [("X-A: b", "https"), ("X-Forwarded-Proto: http", "http")] {
        let done = curl(&["-k", "-H", fields, &url]);
        assert_eq!(done.body, "web1", "{done:?}");
        let got = backend.take_received().remove(0);
        let saw = got.field("x-saw").expect("what filters saw");
        assert_eq!(saw.split("://").next(), Some(scheme));
        assert_eq!(got.field("x-forwarded-proto"), Some(scheme));
    }
    let record = record(&rig.proxy, |r| r["scheme"] == "http");
    assert_eq!(record["target"], "/t");
}

#[test]
fn explain_says_what_is_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sluicegate.yaml");
    std::fs::write(
        &file,
        format!(
            "pools: {{web: {{endpoints: [\"127.0.0.1:9001\"]}}}}\n\
             listeners: [{{name: web, bind: \"127.0.0.1:8080\", protocol: http, pool: web, {TRUSTING}, {SAW}}}]\n"
        ),
    )
    .expect("a file");
    let explained = sluicegate(&[
        "explain",
        "-c",
        &file.to_string_lossy(),
        "GET",
        "http://inner:8080/",
        "-H",
        "X-Forwarded-Proto: https",
        "-H",
        "X-Forwarded-Host: shop.test",
    ]);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    for line in [
        "scheme: http → https",
        "authority: inner:8080 → shop.test",
        "+ x-saw: https://shop.test",
    ] {
        assert!(
            explained.stdout.contains(line),
            "{line} in {}",
            explained.stdout
        );
    }
}
