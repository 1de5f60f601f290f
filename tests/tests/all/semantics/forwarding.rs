//! Who the client is, and what backends are told about it.

use std::net::{SocketAddr, TcpListener};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::each;
use crate::rig::{Plan, TLS, record, with_certificate};

struct Case {
    name: &'static str,
    /// Of a peer that is trusted.
    forwarded: &'static str,
    sent: &'static str,
    client: &'static str,
    /// What the backend gets: every line of the field joined by `|`.
    got: &'static [(&'static str, &'static str)],
}

const CASES: &[Case] = &[
    Case {
        name: "X-Forwarded-For is one comma-joined line, and the client is the first untrusted from the right",
        forwarded: "x",
        sent: "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 127.0.0.9\r\n",
        client: "192.0.2.7",
        got: &[
            (
                "x-forwarded-for",
                "6.6.6.6, 192.0.2.7, 127.0.0.9, 127.0.0.1",
            ),
            ("x-real-ip", "192.0.2.7"),
            ("forwarded", ""),
        ],
    },
    Case {
        name: "with `x`, Forwarded is not believed but passed on",
        forwarded: "x",
        sent: "Forwarded: for=6.6.6.6\r\n",
        client: "127.0.0.1",
        got: &[
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=6.6.6.6"),
        ],
    },
    Case {
        name: "an empty X-Forwarded-For is no element",
        forwarded: "x",
        sent: "X-Forwarded-For: \r\n",
        client: "127.0.0.1",
        got: &[("x-forwarded-for", "127.0.0.1")],
    },
    Case {
        name: "IPv6 bare in X-Forwarded-For",
        forwarded: "x",
        sent: "X-Forwarded-For: 2001:db8::7\r\n",
        client: "2001:db8::7",
        got: &[
            ("x-forwarded-for", "2001:db8::7, 127.0.0.1"),
            ("x-real-ip", "2001:db8::7"),
        ],
    },
    Case {
        name: "X-Real-IP is the address found here, whatever the peer says",
        forwarded: "x",
        sent: "X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 6.6.6.6\r\n",
        client: "192.0.2.7",
        got: &[("x-real-ip", "192.0.2.7")],
    },
    Case {
        name: "what a trusted proxy says of scheme, host and port stays",
        forwarded: "x",
        sent: "X-Forwarded-Proto: https\r\nX-Forwarded-Host: www\r\nX-Forwarded-Port: 443\r\n",
        client: "127.0.0.1",
        got: &[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www"),
            ("x-forwarded-port", "443"),
        ],
    },
    Case {
        name: "Forwarded with brackets and a port",
        forwarded: "rfc7239",
        sent: "Forwarded: for=6.6.6.6\r\nForwarded: For=\"[2001:db8::7]:4711\";proto=https, for=\"127.0.0.9:80\"\r\n\
               X-Forwarded-For: 6.6.6.6\r\n",
        client: "2001:db8::7",
        got: &[
            (
                "forwarded",
                "for=6.6.6.6, For=\"[2001:db8::7]:4711\";proto=https, for=\"127.0.0.9:80\", \
                 for=127.0.0.1;by=BIND;host=\"site:8080\";proto=http",
            ),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-request-id", ""),
        ],
    },
    Case {
        name: "an obfuscated node ends the walk",
        forwarded: "rfc7239",
        sent: "Forwarded: for=6.6.6.6, for=_hidden\r\n",
        client: "127.0.0.1",
        got: &[],
    },
    Case {
        name: "an unknown node ends the walk at the proxy behind it",
        forwarded: "rfc7239",
        sent: "Forwarded: for=6.6.6.6, for=unknown, for=127.0.0.9\r\n",
        client: "127.0.0.9",
        got: &[],
    },
    Case {
        name: "both kinds that agree",
        forwarded: "both",
        sent: "Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.7\r\n",
        client: "192.0.2.7",
        got: &[
            ("x-forwarded-for", "192.0.2.7, 127.0.0.1"),
            ("x-real-ip", "192.0.2.7"),
        ],
    },
    Case {
        name: "both kinds that differ are not believed",
        forwarded: "both",
        sent: "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n",
        client: "127.0.0.1",
        got: &[
            ("x-forwarded-for", "192.0.2.7, 127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
        ],
    },
    Case {
        name: "`none` writes nothing and believes X-Forwarded-For",
        forwarded: "none",
        sent: "X-Forwarded-For: 192.0.2.7\r\n",
        client: "192.0.2.7",
        got: &[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-real-ip", ""),
            ("x-request-id", ""),
            ("forwarded", ""),
        ],
    },
    Case {
        name: "an X-Request-Id that is fit is the exchange's",
        forwarded: "x",
        sent: "X-Request-Id: from-the-edge.1_2\r\n",
        client: "127.0.0.1",
        got: &[("x-request-id", "from-the-edge.1_2")],
    },
];

#[test]
fn one_client_address_and_one_set_of_fields_for_each_way_of_telling() {
    each(
        CASES,
        |case| case.name.to_owned(),
        |case| {
            let backend = Backend::http("web1");
            let rig = Plan::new(&[backend.address()])
                .listener("trusted-proxies: [127.0.0.0/8]")
                .listener(&format!("forwarded: {}", case.forwarded))
                .listener(
                    "filters: [{module: \"builtin:headers\", settings: {request: [{set: x-saw, value: \"${client.address}\"}]}}]",
                )
                .run();
            rig.ask(format!(
                "GET /t HTTP/1.1\r\nHost: site:8080\r\n{}\r\n",
                case.sent
            ));
            let got = backend.take_received().remove(0);
            let record = rig.record("/t");
            // Logs, filters and backends are told the same.
            assert_eq!(record["client"], case.client);
            assert_eq!(got.field("x-saw"), Some(case.client));
            if let Some(id) = got.field("x-request-id") {
                assert_eq!(record["request_id"], id);
            }
            for (name, expected) in case.got {
                let lines: Vec<_> = got.fields(name).collect();
                let expected = expected.replace("BIND", &rig.bind.ip().to_string());
                assert_eq!(lines.join("|"), expected, "{name}");
            }
        },
    );
}

#[test]
fn an_unfit_request_id_is_replaced_everywhere() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("trusted-proxies: [127.0.0.0/8]")
        .run();
    for (n, unfit) in ["a b", &"x".repeat(65), "a\"b"].iter().enumerate() {
        rig.ask(format!(
            "GET /{n} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {unfit}\r\n\r\n"
        ));
        let got = backend.take_received().remove(0);
        let ids: Vec<_> = got.fields("x-request-id").collect();
        assert_eq!(ids.len(), 1, "{unfit}");
        assert_ne!(ids[0], *unfit);
        assert_eq!(rig.record(&format!("/{n}"))["request_id"], ids[0]);
    }
}

#[test]
fn x_forwarded_host_is_what_the_client_asked_for_whatever_filters_made_of_it() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("forwarded: both")
        .listener("filters: [{module: \"builtin:router\", settings: {rules: [{host: inner, pool: web}]}}]")
        .run();
    rig.ask("GET / HTTP/1.1\r\nHost: site:8080\r\n\r\n");
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("host"), Some("inner"));
    assert_eq!(got.field("x-forwarded-host"), Some("site:8080"));
    let forwarded = got.field("forwarded").expect("forwarded");
    assert!(forwarded.contains(";host=\"site:8080\";"), "{forwarded}");
    // Who named no host is not said to have.
    rig.ask("GET / HTTP/1.0\r\n\r\n");
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("x-forwarded-host"), None);
    let forwarded = got.field("forwarded").expect("forwarded");
    assert!(!forwarded.contains("host="), "{forwarded}");
}

#[test]
fn forwarded_brackets_ipv6_and_x_forwarded_for_does_not() {
    let backend = Backend::http("web1");
    let free = TcpListener::bind("[::1]:0").and_then(|l| l.local_addr());
    let bind: SocketAddr = free.expect("a port of ::1");
    let plan = Plan::new(&[backend.address()]).listener("forwarded: both");
    let proxy = Start::new().run(&plan.yaml(bind));
    let mut raw = Raw::connect(bind);
    raw.send("GET /6 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")
        .expect("send");
    assert_eq!(raw.response().expect("response").status, 200);
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("x-forwarded-for"), Some("::1"));
    assert_eq!(got.field("x-real-ip"), Some("::1"));
    assert_eq!(
        got.field("forwarded"),
        Some("for=\"[::1]\";by=\"[::1]\";host=\"[::1]:80\";proto=http")
    );
    assert_eq!(record(&proxy, |r| r["target"] == "/6")["client"], "::1");
}

#[test]
fn over_tls_the_scheme_is_https() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("forwarded: both")
        .listener(TLS)
        .run_with(with_certificate(Start::new()));
    let done = curl(&["-k", &format!("https://{}/", rig.bind)]);
    assert_eq!(done.body, "web1", "{done:?}");
    let got = backend.take_received().remove(0);
    assert_eq!(got.field("x-forwarded-proto"), Some("https"));
    let port = rig.bind.port().to_string();
    assert_eq!(got.field("x-forwarded-port"), Some(port.as_str()));
    let forwarded = got.field("forwarded").expect("forwarded");
    assert!(forwarded.ends_with(";proto=https"), "{forwarded}");
}

#[test]
fn hashes_and_sticky_keys_go_by_the_same_address() {
    let backends = ["web1", "web2"].map(Backend::http);
    let addresses = backends.each_ref().map(Backend::address);
    let guest = "filters: [{module: \"builtin:sticky\", settings: {by: source}}]";
    for listener in ["", guest] {
        let rig = Plan::new(&addresses)
            .listener("trusted-proxies: [127.0.0.0/8]")
            .listener(listener)
            .pool("balance: hash")
            .run();
        let served = |client: u8, left: &str| {
            let answer = rig.ask(format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {left}192.0.2.{client}\r\n\r\n"
            ));
            answer.text()
        };
        let mut seen = std::collections::BTreeSet::new();
        for client in 1..=20 {
            let first = served(client, "");
            assert_eq!(
                served(client, "6.6.6.6, "),
                first,
                "{client} with {listener:?}"
            );
            seen.insert(first);
        }
        assert_eq!(seen.len(), 2, "with {listener:?}");
    }
}
