//! Handlers: wasi:http components as endpoints. Two guests have a behaviour for each path, the same in both versions:
//! `tests/guests/handler` of 0.2 and `tests/guests/service` of 0.3. What only 0.3 has is in `services`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, get};
use sluicegate_tests::proxy::{Proxy, Start, command};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::components;
use super::rig::Rig;

/// Both guests.
const VERSIONS: [fn() -> &'static [u8]; 2] = [components::handler, components::service];

/// The same with another answer for `/`.
fn other(guest: &[u8]) -> Vec<u8> {
    let mut bytes = guest.to_vec();
    let marks: Vec<usize> = (0..bytes.len() - MARK.len())
        .filter(|&at| bytes[at..].starts_with(MARK))
        .collect();
    assert_eq!(marks.len(), 1, "the mark is found once");
    bytes[marks[0]..marks[0] + MARK.len()].copy_from_slice(OTHER);
    bytes
}

const MARK: &[u8] = b"the-mark-is-one";
const OTHER: &[u8] = b"the-mark-is-two";

fn yaml(bind: std::net::SocketAddr, limits: &str) -> String {
    format!(
        "workers: 1\npools:\n  hello:\n    endpoints: [\"wasm:./h.wasm\"]\n    handler: {limits}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: hello}}\n\
         telemetry: {{access-log: {{format: json}}}}\n"
    )
}

/// One worker and one pool, whose only endpoint is `guest`.
pub fn start(guest: &[u8], limits: &str) -> Rig {
    let bind = Addresses::new().free();
    let proxy: Proxy = Start::new().file("h.wasm", guest).run(&yaml(bind, limits));
    Rig { proxy, bind }
}

#[test]
fn a_component_answers_and_is_told_of_the_request() {
    for guest in VERSIONS {
        let rig = start(guest(), "{}");
        assert_eq!(rig.get("/").text().as_bytes(), MARK);
        let record = rig.record("/");
        assert_eq!(record["endpoint"], "wasm:h.wasm");
        assert_eq!(record["pool"], "hello");

        let answer = rig.ask("GET /fields HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\r\n");
        assert_eq!(answer.field("x-one"), Some("1"));
        assert_eq!(answer.field("via"), Some("1.1 sluicegate"));
        let text = answer.text();
        assert!(text.contains("Method::Get"), "{text}");
        assert!(text.contains("\"a.test\""), "{text}");
        assert!(text.contains("x-a: b"), "{text}");
    }
}

#[test]
fn bodies_stream_both_ways_with_trailers() {
    for guest in VERSIONS {
        let rig = start(guest(), "{memory: 8MiB}");
        let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n % 251) as u8).collect();
        let mut raw = rig.raw();
        let sender = raw.stream().try_clone().expect("a second handle");
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::Write;
                let mut sender = &sender;
                let head = format!(
                    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                sender.write_all(head.as_bytes()).expect("head");
                sender.write_all(&body).expect("body");
            });
            raw.response().expect("an answer")
        });
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes came back", answer.body.len());

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
    }
}

#[test]
fn what_breaks_is_told_and_never_looks_whole() {
    for guest in VERSIONS {
        let rig = start(guest(), "{memory: 8MiB}");
        for target in ["/trap", "/silent", "/grow"] {
            assert_eq!(rig.get(target).status, 502, "{target}");
            let record = rig.record(target);
            assert_eq!(record["reason"], "handler-fault", "{target}");
            assert_eq!(record["tries"], 1, "{target}");
        }
        rig.proxy
            .wait_for_log("its memory is limited to 8388608 bytes");
        for target in ["/trap-after", "/short"] {
            let mut raw = rig.raw();
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .expect("send");
            assert!(raw.response().is_err(), "{target}");
            let record = rig.record(target);
            assert_eq!(
                (&record["status"], &record["reason"]),
                (&200.into(), &"handler-fault".into())
            );
        }
        // Instances are of one request: the next is as good as the first.
        assert_eq!(rig.get("/").status, 200);
    }
}

#[test]
fn a_loop_ends_and_others_are_served_meanwhile() {
    for guest in VERSIONS {
        let rig = start(guest(), "{cpu: 300ms, deadline: 60s}");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looping = scope.spawn(|| {
                let answer = rig.get("/loop");
                done.store(true, Ordering::SeqCst);
                answer
            });
            let mut served = 0;
            while !done.load(Ordering::SeqCst) {
                assert_eq!(rig.get("/").status, 200);
                served += 1;
            }
            assert_eq!(looping.join().expect("a client").status, 504);
            assert!(served > 1, "the worker served nobody else");
        });
        assert_eq!(rig.record("/loop")["reason"], "handler-timeout");
    }
}

#[test]
fn a_deadline_ends_what_waits_and_a_client_that_leaves_does_too() {
    for guest in VERSIONS {
        let rig = start(guest(), "{deadline: 300ms}");
        assert_eq!(rig.get("/sleep").status, 504);
        assert_eq!(rig.record("/sleep")["reason"], "handler-timeout");

        let rig = start(guest(), "{instances: 1}");
        let mut raw = rig.raw();
        raw.send("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        rig.proxy.wait_for_log("begins to sleep");
        // The one instance is taken.
        assert_eq!(rig.get("/").status, 503);
        drop(raw);
        let freed = || get(rig.bind, "/").is_ok_and(|answer| answer.status == 200);
        assert!(eventually(DEADLINE, freed), "the guest sleeps on");
        assert!(!rig.proxy.stderr().contains("slept"));
    }
}

#[test]
fn many_at_once_and_what_is_printed() {
    for guest in VERSIONS {
        let rig = start(guest(), "{}");
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..100)
                .map(|_| scope.spawn(|| rig.get("/print").status))
                .collect();
            for client in clients {
                assert_eq!(client.join().expect("a client"), 200);
            }
        });
        let log = rig.proxy.stderr();
        assert!(log.contains("and another"), "{log}");
        assert!(
            log.contains("to stderr") && log.contains("pool=\"hello\""),
            "{log}"
        );
    }
}

#[test]
fn nothing_of_the_machine_is_given() {
    for guest in VERSIONS {
        let rig = start(guest(), "{}");
        let text = rig.get("/world").text();
        assert!(text.starts_with("0 false Err(PermissionDenied)"), "{text}");
        assert!(text.contains("HttpRequestDenied"), "{text}");
    }
}

#[test]
fn a_module_is_replaced_under_load() {
    for guest in VERSIONS {
        let rig = start(guest(), "{}");
        let other = other(guest());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut raw = Raw::connect(rig.bind);
                        while !stop.load(Ordering::SeqCst) {
                            raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
                            let answer = raw.response().expect("an answer");
                            assert_eq!(answer.status, 200);
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    })
                })
                .collect();
            for bytes in [&other[..], guest(), &other[..]] {
                let directory = rig.proxy.directory();
                std::fs::write(directory.join("h.new"), bytes).expect("write");
                std::fs::rename(directory.join("h.new"), directory.join("h.wasm")).expect("rename");
                let output = rig.proxy.reload(&yaml(rig.bind, "{}"));
                assert_eq!(output.code, 0, "{}", output.stderr);
            }
            let seen = eventually(DEADLINE, || rig.get("/").text().as_bytes() == OTHER);
            stop.store(true, Ordering::SeqCst);
            assert!(seen, "the new module does not answer");
            for client in clients {
                client.join().expect("no request is lost");
            }
        });
    }
}

#[test]
fn what_cannot_be_is_told_at_its_place() {
    let web = Backend::http("web");
    let handler = "endpoints: [\"wasm:./h.wasm\"]";
    let core = wat::parse_str("(module)").expect("wat");
    let empty = wat::parse_str("(component)").expect("wat");
    let of = |version: &str| {
        let wat = format!(
            "(component (instance $i) (export \"wasi:http/handler@{version}\" (instance $i)))"
        );
        wat::parse_str(wat).expect("wat")
    };
    let (newer, draft) = (of("0.4.0"), of("0.3.0-rc-2026-03-15"));
    let middleware = wat::parse_str(
        "(component (import \"wasi:http/handler@0.3.0\" (instance $i)) (export \"wasi:http/handler@0.3.0\" (instance $i)))",
    )
    .expect("wat");
    let cases: [(&[u8], String, &str, &str); 10] = [
        (&core, handler.into(), "http", "not a component"),
        (
            &empty,
            handler.into(),
            "http",
            "exports neither wasi:http/incoming-handler nor wasi:http/handler",
        ),
        (
            &newer,
            handler.into(),
            "http",
            "built for wasi:http/handler@0.4.0, this build serves wasi:http 0.2 and 0.3",
        ),
        (
            &draft,
            handler.into(),
            "http",
            "built for wasi:http/handler@0.3.0-rc-2026-03-15",
        ),
        (&middleware, handler.into(), "http", "it is middleware"),
        (
            components::handler(),
            "endpoints: [\"wasm:./none.wasm\"]".into(),
            "http",
            "is not found",
        ),
        (
            components::handler(),
            format!("{handler}, check: tcp"),
            "http",
            "`check` means nothing",
        ),
        (
            components::handler(),
            format!("{handler}, tls: {{}}"),
            "http",
            "`tls` means nothing",
        ),
        (
            components::handler(),
            format!("endpoints: [\"wasm:./h.wasm\", \"{}\"]", web.address()),
            "http",
            "not both",
        ),
        (
            components::handler(),
            handler.into(),
            "tcp",
            "is `tcp`, and pool",
        ),
    ];
    for (module, pool, protocol, expected) in cases {
        let start = Start::new().file("h.wasm", module);
        let yaml = format!(
            "pools: {{hello: {{{pool}}}}}\nlisteners: [{{name: web, bind: \"127.0.0.1:1\", protocol: {protocol}, pool: hello}}]\n"
        );
        let file = start.directory().join("c.yaml");
        std::fs::write(&file, yaml).expect("write");
        let output = command()
            .args(["check", "-c"])
            .arg(&file)
            .output()
            .expect("check runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{pool}: {said}");
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
        assert!(said.contains("c.yaml:"), "{said}");
    }
}
