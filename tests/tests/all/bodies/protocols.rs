//! Body filters whatever is spoken on either side, and whatever form the filter has.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;

use super::super::components;
use super::super::rig::{Plan, Rig};
use super::{built, filters, last, mirror, module, post, rig};

/// Upper case towards the endpoint; of what it answers, all is shown and marked.
const UP_AND_DOWN: &str = "settings: {request: {mode: transform, act: upper}, response: {mode: whole, bytes: 2000000, act: mark}}";

/// Filters in front of an endpoint that is another proxy, which is spoken to in HTTP/2.
fn over_http2(backend: &Backend, all: &[&str]) -> (Rig, Rig) {
    let inner = Plan::new(&[backend.address()]).run();
    let outer = Plan::new(&[inner.bind])
        .pool("protocol: http2")
        .listener(&filters(all))
        .run_with(Start::new().file("bodies.wasm", module()));
    (outer, inner)
}

fn nghttp(arguments: &[&str]) -> String {
    let done = Command::new("nghttp")
        .args(["--no-dep", "--timeout=30"])
        .args(arguments)
        .output()
        .expect("nghttp runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A file with something to upload.
fn upload(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("write");
    file
}

#[test]
fn bodies_of_every_size_over_both_protocols_on_both_sides() {
    let backend = mirror();
    let plain = rig(&backend, &[UP_AND_DOWN]);
    let (outer, inner) = over_http2(&backend, &[UP_AND_DOWN]);
    for size in [0, 1, 1000, 65_536, 1_000_000] {
        let sent = "abcdefgh".repeat(size / 8 + 1);
        let sent = &sent[..size];
        let file = upload(sent.as_bytes());
        let data = format!("@{}", file.path().display());
        for rig in [&plain, &outer] {
            for client in ["--http1.1", "--http2-prior-knowledge"] {
                let done = curl(&[client, "--data-binary", &data, &rig.url("/x")]);
                let wanted = format!("<:{}>", sent.to_ascii_uppercase());
                assert!(done.body == wanted, "{size} {client}: {}", done.stderr);
                let got = last(&backend);
                assert_eq!(got.body.len(), size, "{client}");
            }
        }
    }
    assert_eq!(inner.record("/x")["version"], "HTTP/2");
    for rig in [&plain, &outer] {
        rig.settles();
    }
}

#[test]
fn a_large_body_is_held_whatever_the_window_of_its_stream() {
    let backend = mirror();
    let held = "limits: {memory: 64MiB, deadline: 5s, output: 8MiB}, settings: {request: {mode: whole, bytes: 4000000, act: mark}, response: {mode: whole, bytes: 4000000, act: upper}}";
    let plain = rig(&backend, &[held]);
    let (outer, _inner) = over_http2(&backend, &[held]);
    let sent = "abcdefgh".repeat(400_000);
    let file = upload(sent.as_bytes());
    let data = format!("@{}", file.path().display());
    for rig in [&plain, &outer] {
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            for more in ["x-a: b", "Transfer-Encoding: chunked"] {
                let done = curl(&[client, "-H", more, "--data-binary", &data, &rig.url("/x")]);
                let wanted = format!("<:{}>", sent.to_ascii_uppercase());
                assert!(done.body == wanted, "{client} {more}: {}", done.stderr);
            }
        }
        rig.settles();
    }
}

#[test]
fn many_streams_at_once_keep_their_bodies_apart() {
    let backend = mirror();
    let (outer, _inner) = over_http2(&backend, &[UP_AND_DOWN]);
    let file = upload(&[b'x'; 20_000]);
    let done = Command::new("h2load")
        .args(["-n", "400", "-c", "4", "-m", "20", "-d"])
        .arg(file.path())
        .arg(outer.url("/x"))
        .output()
        .expect("h2load runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    let got = backend.received();
    assert_eq!(got.len(), 400);
    assert!(got.iter().all(|r| r.body == [b'X'; 20_000]));
    outer.settles();
}

#[test]
fn a_handler_is_given_and_gives_what_filters_made() {
    let bind = Addresses::new().free();
    let yaml = format!(
        "pools: {{hello: {{endpoints: [\"wasm:./h.wasm\"]}}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: hello, {}}}\n\
         telemetry: {{access-log: {{format: json}}}}\n",
        filters(&[UP_AND_DOWN])
    );
    let proxy = Start::new()
        .file("h.wasm", components::handler())
        .file("bodies.wasm", module())
        .run(&yaml);
    let rig = Rig { proxy, bind };
    for client in ["--http1.1", "--http2-prior-knowledge"] {
        let done = curl(&[client, "-d", "hello", &rig.url("/echo")]);
        assert_eq!(done.body, "<:HELLO>", "{client}: {}", done.stderr);
    }
    // What breaks while a head is held is the handler's doing, and says so.
    for target in ["/trap-after", "/short"] {
        assert_eq!(rig.get(target).status, 502, "{target}");
        assert_eq!(rig.record(target)["reason"], "handler-fault", "{target}");
    }
    rig.settles();
}

#[test]
fn a_handler_has_its_time_while_a_head_is_held() {
    let bind = Addresses::new().free();
    let yaml = format!(
        "pools: {{hello: {{endpoints: [\"wasm:./h.wasm\"], handler: {{deadline: 300ms}}}}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: hello, {}}}\n\
         telemetry: {{access-log: {{format: json}}}}\n",
        filters(&["settings: {response: {mode: whole, bytes: 99, act: mark}}"])
    );
    let proxy = Start::new()
        .file("h.wasm", components::handler())
        .file("bodies.wasm", module())
        .run(&yaml);
    let rig = Rig { proxy, bind };
    // It sends back what it gets, and waits for more of it.
    let mut raw = rig.raw();
    raw.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        .expect("send");
    assert_eq!(raw.response().expect("a response").status, 504);
    assert_eq!(rig.record("/echo")["reason"], "handler-timeout");
    rig.settles();
}

/// Answers with trailers, and tells which it got.
fn with_trailers() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while raw.head().is_ok() {
            let mut body = String::new();
            let trailers = loop {
                let Ok(line) = raw.line() else { return };
                let Ok(size) = usize::from_str_radix(&line, 16) else {
                    return;
                };
                if size > 0 {
                    let Ok(piece) = raw.exactly(size + 2) else {
                        return;
                    };
                    body += &String::from_utf8_lossy(&piece[..size]);
                    continue;
                }
                let mut all = Vec::new();
                loop {
                    match raw.line() {
                        Ok(line) if line.is_empty() => break,
                        Ok(line) => all.push(line),
                        Err(_) => return,
                    }
                }
                break all.join(", ");
            };
            let told = format!("{body} [{trailers}]");
            let _ = raw.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{told}\r\n0\r\nx-b: 2\r\nx-gone: 1\r\n\r\n",
                told.len()
            ));
        }
    })
}

#[test]
fn trailers_of_http2_pass_both_ways_edited() {
    let backend = with_trailers();
    let file = upload(b"hi");
    for mode in ["first", "whole", "watch", "transform"] {
        let does = format!("{{mode: {mode}, bytes: 100, act: none}}");
        let all = [&*format!("settings: {{request: {does}, response: {does}}}")];
        let (outer, inner) = over_http2(&backend, &all);
        let plain = rig(&backend, &all);
        for (rig, hops) in [(&plain, 1), (&outer, 2)] {
            let data = file.path().display().to_string();
            let got = nghttp(&[
                "-v",
                "--no-content-length",
                "--data",
                &data,
                "--trailer=x-a: 1",
                "--trailer=x-gone: 1",
                &rig.url("/x"),
            ]);
            assert!(
                got.contains("hi [x-a: 1, x-trailers: 2]"),
                "{mode}, {hops}: {got}"
            );
            assert!(
                got.contains("x-b: 2") && got.matches("x-trailers: 2").count() == 2,
                "{mode}, {hops}: {got}"
            );
            let told = |line: &str| line.contains("recv") && line.contains("x-gone");
            assert!(!got.lines().any(told), "{mode}, {hops}: {got}");
        }
        drop((outer, inner));
    }
}

#[test]
fn the_same_filter_as_a_component() {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    let component = COMPONENT.get_or_init(|| built("wasm32-wasip2"));
    // The layer of a component, after the magic bytes.
    assert_eq!(component[4..8], [13, 0, 1, 0]);
    assert_eq!(module()[4..8], [1, 0, 0, 0]);
    let backend = mirror();
    let settings = [
        "settings: {name: n, request: {mode: transform, act: mark}, response: {mode: whole, bytes: 400000, act: upper}}",
        "settings: {name: n, request: {mode: first, bytes: 3, act: mark}, response: {mode: transform, act: end}}",
        "settings: {name: n, request: {mode: whole, bytes: 9, over: refuse, act: mark}}",
        "settings: {name: n, request: {mode: whole, bytes: 9, over: bypass, act: fault}, response: {mode: watch, act: none}}",
        "settings: {name: n, response: {mode: whole, bytes: 9, act: reply}}",
    ];
    let long = "0123456789".repeat(30_000);
    for settings in settings {
        let answers = [module(), component].map(|filter| {
            let rig = Plan::new(&[backend.address()])
                .listener(&filters(&[settings]))
                .run_with(Start::new().file("bodies.wasm", filter));
            ["", "x", "a TRAP", &long].map(|body| {
                // The pieces of a long one are cut as the network brings them.
                if body.len() > 100 && settings.contains("transform, act: mark") {
                    return (0, None, None, String::new());
                }
                let answer = post(&rig, body);
                let text = match answer.status {
                    200 | 203 | 451 => answer.text(),
                    // It has the request's id.
                    _ => String::new(),
                };
                let field = |name: &str| answer.field(name).map(str::to_owned);
                (
                    answer.status,
                    field("x-seen"),
                    field("content-length").filter(|_| !text.is_empty()),
                    text,
                )
            })
        });
        assert!(answers[0] == answers[1], "{settings}");
    }
}

#[test]
fn a_switch_of_protocols_and_connect_show_no_body() {
    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(_) = raw.head() else { return };
        let _ = raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let Ok(ping) = raw.exactly(4) else { return };
        let _ = raw.send(ping);
    });
    for mode in ["first", "whole", "watch", "transform"] {
        let does = format!("{{mode: {mode}, bytes: 2, over: refuse, act: fault}}");
        let rig = rig(
            &backend,
            &[&format!("settings: {{request: {does}, response: {does}}}")],
        );
        let mut raw = rig.raw();
        raw.send(UPGRADE).expect("send");
        let head = raw.head().expect("head");
        assert!(
            head.starts_with("HTTP/1.1 101 ") && !head.contains("x-seen"),
            "{mode}: {head}"
        );
        raw.send("TRAP").expect("send");
        assert_eq!(raw.exactly(4).expect("the echo"), b"TRAP", "{mode}");
        drop(raw);
        rig.settles();
        // Nor does CONNECT, which is refused.
        let answer = rig.ask("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n");
        assert!(answer.status >= 400 && answer.field("x-seen").is_none());
        let called = rig
            .proxy
            .admin("GET", "/metrics")
            .expect("metrics")
            .text()
            .lines()
            .filter(|line| line.starts_with("sluicegate_filter_calls_total{"))
            .any(|line| !line.ends_with(" 0"));
        assert!(!called, "{mode}");
    }
}

#[test]
fn bodies_of_nothing() {
    let backend = Backend::http_with(|r| match r.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n".to_vec(),
        "/empty" => response(200, ""),
        _ if r.head.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => response(200, "a body!"),
    });
    let held =
        |mode: &str| format!("settings: {{response: {{mode: {mode}, bytes: 50, act: mark}}}}");
    for (mode, empty, full) in [
        ("whole", "<:>", "<:a body!>"),
        ("first", "<:>", "<:a body!>"),
        ("transform", "<:>", "<:a body!>"),
        ("watch", "", "a body!"),
    ] {
        let settings = match mode {
            "watch" => "settings: {response: {mode: watch, act: none}}".to_owned(),
            _ => held(mode),
        };
        let rig = rig(&backend, &[&settings]);
        for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
            for (target, status, body) in [
                ("/204", "204", ""),
                ("/304", "304", ""),
                (
                    "/empty",
                    if mode == "whole" || mode == "first" {
                        "203"
                    } else {
                        "200"
                    },
                    empty,
                ),
                (
                    "/full",
                    if mode == "whole" || mode == "first" {
                        "203"
                    } else {
                        "200"
                    },
                    full,
                ),
            ] {
                let done = curl(&[version, "-w", " %{http_code}", &rig.url(target)]);
                assert_eq!(
                    done.body,
                    format!("{body} {status}"),
                    "{mode} {version} {target}: {}",
                    done.stderr
                );
            }
            let done = curl(&[version, "--head", &rig.url("/full")]);
            assert!(done.body.contains(" 200"), "{done:?}");
            // What a filter may change has another length, or who knows.
            let told = done.body.to_ascii_lowercase().contains("content-length: 7");
            assert_eq!(told, mode == "watch", "{mode} {version}: {}", done.body);
        }
        rig.settles();
    }
}
