//! Middleware: a component of `wasi:http` 0.3 in the place of a filter, with filters before it and behind it. One guest,
//! `tests/guests/middleware`, has a behaviour for each path.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, get};
use sluicegate_tests::proxy::{Start, command};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::components::{middleware, service};
use super::rig::{Rig, records};

/// `filters` of a listener whose pool is `web`; another pool is `other`.
struct Site {
    rig: Rig,
    web: Backend,
    other: Backend,
    filters: String,
}

impl Site {
    fn start(filters: &str) -> Self {
        Self::start_with(filters, Backend::http("web"))
    }

    fn start_with(filters: &str, web: Backend) -> Self {
        let other = Backend::http("other");
        let bind = Addresses::new().free();
        let yaml = yaml(bind, filters, &web, &other);
        let proxy = Start::new().file("m.wasm", middleware()).run(&yaml);
        Self {
            rig: Rig { proxy, bind },
            web,
            other,
            filters: filters.to_owned(),
        }
    }

    fn yaml(&self) -> String {
        yaml(self.rig.bind, &self.filters, &self.web, &self.other)
    }
}

fn yaml(bind: std::net::SocketAddr, filters: &str, web: &Backend, other: &Backend) -> String {
    format!(
        "workers: 1\npools:\n  web: {{endpoints: [\"{}\"]}}\n  other: {{endpoints: [\"{}\"]}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, filters: [{filters}]}}\n\
         telemetry: {{access-log: {{format: json}}}}\n",
        web.address(),
        other.address()
    )
}

const ALONE: &str = "{module: ./m.wasm}";

fn headers(request: &str, value: &str) -> String {
    format!(
        "{{module: builtin:headers, settings: {{request: [{{append: {request}, value: {value}}}], \
         response: [{{append: {request}, value: {value}}}]}}}}"
    )
}

#[test]
fn what_it_lets_pass_reaches_the_pool_and_has_one_record() {
    let site = Site::start(ALONE);
    let answer = site.rig.get("/as-it-is");
    assert_eq!((answer.status, answer.text().contains("web")), (200, true));
    assert_eq!(answer.field("via"), Some("1.1 sluicegate"));
    let received = site.web.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].target(), "/as-it-is");
    assert_eq!(received[0].field("via"), Some("1.1 sluicegate"));
    assert_eq!(received[0].fields("x-forwarded-for").count(), 1);
    assert_eq!(received[0].field("transfer-encoding"), None);
    let record = site.rig.record("/as-it-is");
    assert_eq!(record["pool"], "web");
    assert_eq!(record["endpoint"], site.web.address().to_string());
    assert_eq!(
        (&record["tries"], &record["status"]),
        (&1.into(), &200.into())
    );
    assert_eq!(records(&site.rig.proxy).len(), 1);
    // The connection to the endpoint is kept for the next one.
    for _ in 0..5 {
        assert_eq!(site.rig.get("/as-it-is").status, 200);
    }
    assert_eq!(site.web.connections(), 1);
}

#[test]
fn filters_before_and_behind_it_see_what_is_theirs() {
    let filters = format!(
        "{}, {ALONE}, {}",
        headers("x-before", "b"),
        headers("x-behind", "c")
    );
    let site = Site::start(&filters);
    let answer = site.rig.get("/edit");
    assert_eq!(answer.field("x-middleware"), Some("answered"));
    assert_eq!(answer.field("x-before"), Some("b"));
    assert_eq!(answer.field("x-behind"), Some("c"));
    let received = site.web.received();
    assert_eq!(received[0].target(), "/edited");
    assert_eq!(received[0].field("x-middleware"), Some("asked"));
    assert_eq!(received[0].field("x-before"), Some("b"));
    assert_eq!(received[0].field("x-behind"), Some("c"));
    // What it answers by itself passes the filters before it, and nobody else.
    let own = site.rig.get("/own");
    assert_eq!(own.text(), "the-mark-is-one");
    assert_eq!(
        (own.field("x-before"), own.field("x-behind")),
        (Some("b"), None)
    );
    assert_eq!(site.web.received().len(), 1);
}

#[test]
fn a_route_chosen_before_it_holds_behind_it() {
    let router =
        "{module: builtin:router, settings: {rules: [{match: {path: /edit}, pool: other}]}}";
    let site = Site::start(&format!("{router}, {ALONE}"));
    assert!(site.rig.get("/edit").text().contains("other"));
    assert_eq!(site.rig.record("/edit")["pool"], "other");
    assert!(site.rig.get("/x").text().contains("web"));
}

#[test]
fn a_filter_behind_it_may_answer_or_close() {
    let block = |action: &str| {
        format!("{{module: builtin:ua-block, settings: {{deny: [\"badcurl\"], action: {action}}}}}")
    };
    let ask = "GET /x HTTP/1.1\r\nHost: x\r\nUser-Agent: badcurl\r\n\r\n";
    let site = Site::start(&format!("{ALONE}, {}", block("reply")));
    assert_eq!(site.rig.ask(ask).status, 403);
    assert_eq!(site.rig.record("/x")["reason"], "filter-reply");

    let site = Site::start(&format!("{ALONE}, {}", block("drop")));
    let mut raw = site.rig.raw();
    raw.send(ask).expect("send");
    assert_eq!(raw.to_end().expect("the end"), b"");
    assert_eq!(site.rig.record("/x")["reason"], "filter-drop");
    assert!(site.web.received().is_empty());
}

#[test]
fn bodies_stream_through_it_both_ways() {
    let echo = Backend::http_with(|received| {
        let body = String::from_utf8_lossy(&received.body).into_owned();
        response(200, &body)
    });
    let site = Site::start_with("{module: ./m.wasm, handler: {memory: 4MiB}}", echo);
    let body: Vec<u8> = (0..8 << 20).map(|n: u32| b'a' + (n % 26) as u8).collect();
    for (target, upper) in [("/pass", false), ("/shout", true)] {
        let mut raw = site.rig.raw();
        let sender = raw.stream().try_clone().expect("a second handle");
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sender = &sender;
                let length = body.len();
                let head = format!(
                    "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
                );
                sender.write_all(head.as_bytes()).expect("head");
                sender.write_all(&body).expect("body");
            });
            raw.response().expect("an answer")
        });
        assert_eq!(answer.status, 200);
        let expected = match upper {
            true => body.to_ascii_uppercase(),
            false => body.clone(),
        };
        assert!(
            answer.body == expected,
            "{target}: {} bytes",
            answer.body.len()
        );
    }
}

#[test]
fn it_asks_as_often_as_it_may() {
    let site = Site::start(ALONE);
    assert!(site.rig.get("/twice").text().contains("web"));
    let targets: Vec<_> = site
        .web
        .received()
        .iter()
        .map(|r| r.target().to_owned())
        .collect();
    assert_eq!(targets, ["/first", "/second"]);
    assert_eq!(site.rig.record("/twice")["tries"], 2);
    assert_eq!(site.rig.get("/often").text(), "16");
    assert_eq!(site.rig.record("/often")["tries"], 16);
    assert_eq!(records(&site.rig.proxy).len(), 2);
}

#[test]
fn what_breaks_is_told() {
    let site = Site::start(ALONE);
    for target in ["/trap", "/trap-after", "/error"] {
        assert_eq!(site.rig.get(target).status, 502, "{target}");
        assert_eq!(
            site.rig.record(target)["reason"],
            "handler-fault",
            "{target}"
        );
    }
    // What it was sending does not look whole.
    site.web.take_received();
    assert_eq!(site.rig.get("/cut").status, 502);
    assert_eq!(site.rig.get("/x").status, 200);
    let received = site.web.received();
    let targets: Vec<_> = received.iter().map(|r| r.target()).collect();
    assert_eq!(targets, ["/x"]);

    // A pool without an endpoint is answered behind it, and the record says why.
    let gone = Site::start(ALONE);
    let Site { rig, web, .. } = gone;
    web.stop();
    assert_eq!(rig.get("/x").status, 502);
    let record = rig.record("/x");
    assert_eq!(record["reason"], "connect-refused");
    assert_eq!(record["pool"], "web");
}

#[test]
fn a_response_that_breaks_off_never_looks_whole() {
    let cut = Backend::http_with(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf".to_vec()
    });
    let site = Site::start_with(ALONE, cut);
    let mut raw = site.rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(raw.response().is_err());
    assert_eq!(site.rig.record("/x")["status"], 200);
}

#[test]
fn its_limits_hold_and_a_client_that_leaves_ends_it() {
    let site = Site::start("{module: ./m.wasm, handler: {deadline: 300ms}}");
    assert_eq!(site.rig.get("/sleep").status, 504);
    assert_eq!(site.rig.record("/sleep")["reason"], "handler-timeout");

    let site = Site::start("{module: ./m.wasm, handler: {instances: 1}}");
    let mut raw = site.rig.raw();
    raw.send("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    site.rig.proxy.wait_for_log("begins to sleep");
    assert_eq!(site.rig.get("/x").status, 503);
    drop(raw);
    let freed = || get(site.rig.bind, "/x").is_ok_and(|answer| answer.status == 200);
    assert!(eventually(DEADLINE, freed), "the guest sleeps on");
}

#[test]
fn one_may_stand_behind_another() {
    let site = Site::start(&format!("{ALONE}, {ALONE}, {}", headers("x-behind", "c")));
    let answer = site.rig.get("/edit");
    assert_eq!(answer.field("x-middleware"), Some("answered"));
    assert_eq!(site.web.received()[0].target(), "/edited");
    assert_eq!(site.rig.record("/edit")["tries"], 1);
}

#[test]
fn a_handler_may_stand_behind_it() {
    // Two guests of one version: neither may run within the other.
    let bind = Addresses::new().free();
    let yaml = format!(
        "workers: 1\npools:\n  hello: {{endpoints: [\"wasm:./s.wasm\"]}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: hello, filters: [{ALONE}, {ALONE}]}}\n\
         telemetry: {{access-log: {{format: json}}}}\n"
    );
    let proxy = Start::new()
        .file("m.wasm", middleware())
        .file("s.wasm", service())
        .run(&yaml);
    let rig = Rig { proxy, bind };
    assert_eq!(rig.get("/").text(), "the-mark-is-one");
    assert_eq!(rig.record("/")["endpoint"], "wasm:s.wasm");
    // Trailers pass both ways, in pieces.
    let mut raw = rig.raw();
    raw.send(
        "POST /echo HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .expect("send");
    let head = raw.head().expect("a head");
    assert!(head.contains("200 OK"), "{head}");
    let rest = raw.exactly("3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n".len());
    let rest = String::from_utf8_lossy(&rest.expect("the body")).into_owned();
    assert_eq!(rest, "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
    // And so does what breaks off.
    let mut raw = rig.raw();
    raw.send("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(raw.response().is_err());
}

#[test]
fn a_client_that_expects_100_is_asked_for_its_body() {
    let site = Site::start(ALONE);
    let mut raw = site.rig.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .expect("send");
    let interim = raw.head().expect("an interim head");
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    raw.send("abc").expect("send");
    assert_eq!(raw.response().expect("an answer").status, 200);
    assert_eq!(site.web.received()[0].body, b"abc");
    assert_eq!(site.web.received()[0].field("expect"), None);
}

#[test]
fn it_is_replaced_under_load() {
    let site = Site::start(ALONE);
    let mut other = middleware().to_vec();
    let mark = b"the-mark-is-one";
    let at = (0..other.len() - mark.len())
        .find(|&at| other[at..].starts_with(mark))
        .expect("the mark");
    other[at..at + mark.len()].copy_from_slice(b"the-mark-is-two");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut raw = Raw::connect(site.rig.bind);
                    while !stop.load(Ordering::SeqCst) {
                        raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                            .expect("send");
                        assert_eq!(raw.response().expect("an answer").status, 200);
                    }
                })
            })
            .collect();
        for bytes in [&other[..], middleware(), &other[..]] {
            let directory = site.rig.proxy.directory();
            std::fs::write(directory.join("m.new"), bytes).expect("write");
            std::fs::rename(directory.join("m.new"), directory.join("m.wasm")).expect("rename");
            let output = site.rig.proxy.reload(&site.yaml());
            assert_eq!(output.code, 0, "{}", output.stderr);
        }
        let seen = eventually(DEADLINE, || {
            site.rig.get("/own").text() == "the-mark-is-two"
        });
        stop.store(true, Ordering::SeqCst);
        assert!(seen, "the new module does not answer");
        for client in clients {
            client.join().expect("no request is lost");
        }
    });
}

#[test]
fn check_names_it_with_its_digest() {
    let web = Backend::http("web");
    let start = Start::new().file("m.wasm", middleware());
    let bind = "127.0.0.1:1".parse().expect("an address");
    let file = start.directory().join("c.yaml");
    std::fs::write(&file, yaml(bind, ALONE, &web, &web)).expect("write");
    let output = command()
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .expect("check runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("middleware \"web/m\": "), "{said}");
    assert!(said.contains("m.wasm sha256 "), "{said}");
}

#[test]
fn what_means_nothing_for_it_is_told_at_its_place() {
    let web = Backend::http("web");
    let cases = [
        (
            "{module: ./m.wasm, settings: {a: b}}",
            "http",
            "`settings` means nothing",
        ),
        (
            "{module: ./m.wasm, limits: {memory: 1MiB}}",
            "http",
            "`limits` means nothing",
        ),
        (
            "{module: ./m.wasm, on-error: bypass}",
            "http",
            "`on-error` means nothing",
        ),
        (
            "{module: builtin:headers, handler: {cpu: 1s}}",
            "http",
            "`handler` means nothing for filter",
        ),
        (
            "{module: ./m.wasm}",
            "tcp",
            "does nothing on a listener with `protocol: tcp`",
        ),
    ];
    for (filter, protocol, expected) in cases {
        let start = Start::new().file("m.wasm", middleware());
        let yaml = format!(
            "pools: {{web: {{endpoints: [\"{}\"]}}}}\nlisteners: [{{name: web, bind: \"127.0.0.1:1\", protocol: {protocol}, pool: web, filters: [{filter}]}}]\n",
            web.address()
        );
        let file = start.directory().join("c.yaml");
        std::fs::write(&file, yaml).expect("write");
        let output = command()
            .args(["check", "-c"])
            .arg(&file)
            .output()
            .expect("check runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{filter}: {said}");
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
}
