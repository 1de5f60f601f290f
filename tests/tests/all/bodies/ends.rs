//! Exchanges with body filters that do not go well: verdicts that end them, time that is up, clients that leave, tries
//! that are repeated.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, field};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::super::frames::{self, Client};
use super::super::rig::{Plan, Rig, records};
use super::{filters, mirror, module, rig};

/// Upstream connections that are kept would count as left behind.
const KEEP_NONE: &str = "keep-alive: {max: 0}";

fn rig_with(backend: &Backend, listener: &str, all: &[&str]) -> Rig {
    Plan::new(&[backend.address()])
        .listener(listener)
        .listener(&filters(all))
        .pool(KEEP_NONE)
        .run_with(Start::new().file("bodies.wasm", module()))
}

/// Reads a chunked body, or one of known length; whether it came to its end.
fn whole(raw: &mut Raw, head: &str) -> Option<Vec<u8>> {
    if let Some(length) = field(head, "content-length") {
        return raw.exactly(length.parse().ok()?).ok();
    }
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&raw.line().ok()?, 16).ok()?;
        let piece = raw.exactly(size + 2).ok()?;
        body.extend_from_slice(&piece[..size]);
        if size == 0 {
            return Some(body);
        }
    }
}

/// What a client sees of an exchange that a filter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

fn end(raw: &mut Raw) -> (Vec<u8>, End) {
    let mut got = Vec::new();
    loop {
        match raw.exactly(1) {
            Ok(byte) => got.extend(byte),
            Err(why) if why.kind() == ErrorKind::UnexpectedEof => return (got, End::Closed),
            Err(why) if why.kind() == ErrorKind::ConnectionReset => return (got, End::Reset),
            Err(why) => panic!("{why}, after {}", String::from_utf8_lossy(&got)),
        }
    }
}

/// A backend with the number of heads it has read, and which requests were whole, once they have ended.
fn witness() -> (Backend, Arc<AtomicUsize>, Arc<Mutex<Vec<bool>>>) {
    let heads = Arc::new(AtomicUsize::new(0));
    let requests: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (count, ended) = (heads.clone(), requests.clone());
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        count.fetch_add(1, Ordering::SeqCst);
        let got = whole(&mut raw, &head).is_some();
        ended.lock().expect("lock").push(got);
        if got {
            let _ = raw.send(response(200, "ok"));
        }
    });
    (backend, heads, requests)
}

#[test]
fn drop_and_reset_in_the_body_of_a_request() {
    for (verdict, ended, reason) in [
        ("drop", End::Closed, "filter-drop"),
        ("reset", End::Reset, "filter-reset"),
    ] {
        for mode in ["first", "whole", "watch", "transform"] {
            // One for each, since what a filter ended ends at the backend in its own time.
            let (backend, heads, requests) = witness();
            let rig = rig_with(
                &backend,
                "",
                &[&format!(
                    "settings: {{request: {{mode: {mode}, bytes: 20, act: {verdict}}}}}"
                )],
            );
            let holds = matches!(mode, "first" | "whole");
            let mut raw = rig.raw();
            raw.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nbegin")
                .expect("send");
            if !holds {
                // The head is with the backend before the filter ends it.
                let there = || heads.load(Ordering::SeqCst) > 0;
                assert!(eventually(DEADLINE, there), "{mode}");
            }
            raw.send(" STOP").expect("send");
            assert_eq!(end(&mut raw), (Vec::new(), ended), "{mode}");
            assert_eq!(rig.record("/x")["reason"], reason, "{mode}");
            let answer = rig.ask("POST /y HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGOOD");
            assert_eq!(answer.text(), "ok");
            let mut wanted = vec![true];
            if !holds {
                wanted.insert(0, false);
            }
            let sorted = || {
                let mut all = requests.lock().expect("lock").clone();
                all.sort_unstable();
                all
            };
            assert!(eventually(DEADLINE, || sorted() == wanted), "{mode}");
            // One stream of HTTP/2 ends, and the others go on.
            let mut client = Client::connect(rig.bind);
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/h2"),
                (":authority", "site"),
            ];
            let _ = client.raw.send(frames::headers_open(1, &fields));
            let _ = client.raw.send(frames::data_end(1, b"STOP"));
            loop {
                let frame = client.next_of(&[frames::HEADERS, frames::RST_STREAM]);
                if frame.stream == 1 {
                    assert_eq!(frame.kind, frames::RST_STREAM, "{mode} {verdict}");
                    break;
                }
            }
            let _ = client.raw.send(frames::headers_open(3, &fields));
            let _ = client.raw.send(frames::data_end(3, b"GOOD"));
            let frame = client.next_of(&[frames::HEADERS]);
            assert_eq!((frame.stream, frame.status()), (3, 200), "{mode} {verdict}");
            drop((client, raw));
            rig.settles();
        }
    }
}

#[test]
fn drop_and_reset_in_the_body_of_a_response() {
    let go = Arc::new(AtomicBool::new(false));
    let told = go.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin");
        let waits = head.contains("/x") && head.contains("x-waits");
        if waits && !eventually(DEADLINE, || told.load(Ordering::SeqCst)) {
            return;
        }
        let _ = raw.send(if head.contains("/x") {
            " STOP"
        } else {
            " GOOD"
        });
    });
    for (verdict, ended, reason) in [
        ("drop", End::Closed, "filter-drop"),
        ("reset", End::Reset, "filter-reset"),
    ] {
        for mode in ["first", "whole", "watch", "transform"] {
            let rig = rig_with(
                &backend,
                "",
                &[&format!(
                    "settings: {{response: {{mode: {mode}, bytes: 20, act: {verdict}}}}}"
                )],
            );
            let holds = matches!(mode, "first" | "whole");
            go.store(false, Ordering::SeqCst);
            let mut raw = rig.raw();
            let waits = if holds { "" } else { "x-waits: 1\r\n" };
            raw.send(format!("GET /x HTTP/1.1\r\nHost: x\r\n{waits}\r\n"))
                .expect("send");
            if !holds {
                let head = raw.head().expect("head");
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                if mode == "watch" {
                    assert_eq!(raw.exactly(5).expect("the first piece"), b"begin");
                }
            }
            go.store(true, Ordering::SeqCst);
            let (rest, got) = end(&mut raw);
            assert_eq!(got, ended, "{mode} {verdict}");
            match holds {
                true => assert_eq!(rest, b"", "{mode}"),
                // The last chunk is missing, or some of the length.
                false => assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 20, "{mode}"),
            }
            assert_eq!(rig.record("/x")["reason"], reason, "{mode}");
            assert_eq!(rig.get("/y").text(), "begin GOOD");
            let mut client = Client::connect(rig.bind);
            client.request(1, "/x");
            loop {
                let frame = client.next_of(&[frames::HEADERS, frames::DATA, frames::RST_STREAM]);
                if frame.kind == frames::RST_STREAM {
                    break;
                }
                assert!(!holds && frame.stream == 1, "{mode} {verdict}");
            }
            client.request(3, "/y");
            let frame = client.next_of(&[frames::HEADERS]);
            assert_eq!((frame.stream, frame.status() / 100), (3, 2));
            drop((client, raw));
            rig.settles();
        }
    }
}

#[test]
fn who_pauses_while_a_head_is_held_is_out_of_time() {
    for mode in ["first", "whole"] {
        let backend = Backend::raw(|stream, _| {
            let mut raw = Raw::over(stream);
            if raw.head().is_ok() {
                let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin");
                // Nothing more, until the proxy has had enough.
                let _ = raw.to_end();
            }
        });
        let does = format!("{{mode: {mode}, bytes: 20, act: mark}}");
        let rig = rig_with(
            &backend,
            "timeouts: {body-idle: 300ms, stream-idle: 300ms}",
            &[&format!("settings: {{request: {does}, response: {does}}}")],
        );
        let mut raw = rig.raw();
        raw.send("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nbegin")
            .expect("send");
        let answer = raw.response().expect("a response");
        assert_eq!(
            (answer.status, answer.field("connection")),
            (408, Some("close"))
        );
        assert_eq!(rig.record("/up")["reason"], "request-body-timeout");
        assert_eq!(backend.connections(), 0);
        let mut client = Client::connect(rig.bind);
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/up2"),
            (":authority", "site"),
        ];
        let _ = client.raw.send(frames::headers_open(1, &fields));
        let _ = client.raw.send(frames::data(1, b"begin"));
        let frame = client.next_of(&[frames::HEADERS]);
        assert_eq!((frame.stream, frame.status()), (1, 408));
        assert_eq!(rig.record("/up2")["reason"], "request-body-timeout");
        let answer = rig.get("/down");
        assert_eq!(answer.status, 504);
        assert_eq!(rig.record("/down")["reason"], "response-timeout");
        drop((raw, client));
        rig.settles();
    }
}

#[test]
fn a_held_body_may_take_longer_to_send_than_a_pause_may_last() {
    const BODY: usize = 32 << 20;
    let backend = Backend::raw(|stream, _| {
        // Else the kernel takes most of it at once.
        let _ = socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10);
        let mut raw = Raw::over(stream);
        let Ok(_) = raw.head() else { return };
        for _ in 0..BODY >> 20 {
            // A slow reader, and that is what is tested: it never pauses as long as the proxy would wait.
            std::thread::sleep(Duration::from_millis(100));
            if raw.exactly(1 << 20).is_err() {
                return;
            }
        }
        let _ = raw.send(response(200, "all of it"));
    });
    let rig = rig_with(
        &backend,
        "timeouts: {body-idle: 1s, response-head: 1s}",
        &[&format!(
            "limits: {{memory: 128MiB, deadline: 5s, output: 64MiB}}, settings: {{request: {{mode: whole, bytes: {BODY}, act: none}}}}"
        )],
    );
    let mut raw = rig.raw();
    raw.send(format!(
        "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n"
    ))
    .expect("send");
    raw.send(vec![b'x'; BODY]).expect("send");
    let answer = raw.response().expect("a response");
    assert_eq!((answer.status, answer.text().as_str()), (200, "all of it"));
}

#[test]
fn a_client_that_leaves_while_a_head_is_held_leaves_nothing_behind() {
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begun, ended) = (opened.clone(), closed.clone());
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_err() {
            return;
        }
        let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n");
        let _ = raw.send(vec![b'x'; 1_000_000]);
        begun.fetch_add(1, Ordering::SeqCst);
        let _ = raw.to_end();
        ended.fetch_add(1, Ordering::SeqCst);
    });
    let does = "{mode: whole, bytes: 3000000, act: mark}";
    let rig = rig_with(
        &backend,
        "",
        &[&format!("settings: {{request: {does}, response: {does}}}")],
    );
    let upload = |n: usize, h2: bool| {
        let target = format!("/up{n}{h2}");
        if h2 {
            rig.settles();
            let mut client = Client::connect(rig.bind);
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", &*target),
                (":authority", "site"),
            ];
            let _ = client.raw.send(frames::headers_open(1, &fields));
            for _ in 0..3 {
                let _ = client.raw.send(frames::data(1, &[b'x'; 16_000]));
            }
            // A stream that is cancelled before it is looked at is no exchange.
            let begun = || {
                rig.proxy
                    .metric("sluicegate_exchanges_active{listener=\"web\"}")
                    > 0.0
            };
            assert!(eventually(DEADLINE, begun), "the exchange begins");
            client.cancel(1);
            assert!(eventually(DEADLINE, || !begun()), "and ends");
            return;
        }
        let mut raw = rig.raw();
        raw.send(format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
        ))
        .expect("send");
        raw.send(vec![b'x'; 1_000_000]).expect("send");
    };
    let download = |n: usize, h2: bool| {
        let target = format!("/down{n}{h2}");
        let before = opened.load(Ordering::SeqCst);
        let waits = || {
            let there = eventually(DEADLINE, || opened.load(Ordering::SeqCst) > before);
            assert!(there, "the backend answers");
        };
        if h2 {
            let mut client = Client::connect(rig.bind);
            client.request(1, &target);
            waits();
            client.cancel(1);
            let gone = || closed.load(Ordering::SeqCst) > before;
            assert!(eventually(DEADLINE, gone), "though the connection stays");
        } else {
            let mut raw = rig.raw();
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .expect("send");
            waits();
            // As a client does that is killed.
            let _ = raw.stream().shutdown(Shutdown::Both);
        }
        let gone = || closed.load(Ordering::SeqCst) == opened.load(Ordering::SeqCst);
        assert!(eventually(DEADLINE, gone), "the backend's connection ends");
    };
    let round = |n: usize| {
        for h2 in [false, true] {
            upload(n, h2);
            download(n, h2);
        }
    };
    round(0);
    let before = rig.proxy.settled();
    for n in 1..15 {
        round(n);
    }
    rig.proxy.assert_nothing_left(before, 8 << 20);
    let left = || records(&rig.proxy).len() == 15 * 4;
    assert!(eventually(DEADLINE, left), "each has its record");
    for record in records(&rig.proxy) {
        assert_eq!(record["reason"], "client-gone", "{record}");
    }
}

#[test]
fn a_body_that_is_repeated_is_the_changed_one_in_every_mode() {
    for (mode, wanted) in [
        ("first", "<:hello>"),
        ("whole", "<:hello>"),
        ("transform", "<:hello>"),
        ("watch", "hello"),
    ] {
        let got = Arc::new(Mutex::new(Vec::new()));
        let bodies = got.clone();
        let backend = Backend::raw(move |stream, _| {
            let mut raw = Raw::over(stream);
            let Ok(head) = raw.head() else { return };
            let Some(body) = whole(&mut raw, &head) else {
                return;
            };
            let mut bodies = bodies.lock().expect("lock");
            bodies.push(String::from_utf8_lossy(&body).into_owned());
            if bodies.len() == 3 {
                let _ = raw.send(response(200, "ok"));
            }
        });
        let act = if mode == "watch" { "none" } else { "mark" };
        let rig = Plan::new(&[backend.address()])
            .listener(&filters(&[&format!(
                "settings: {{request: {{mode: {mode}, bytes: 50, act: {act}}}}}"
            )]))
            .listener("limits: {replay-bytes: 1KiB}")
            .pool("retries: 3")
            .run_with(Start::new().file("bodies.wasm", module()));
        let answer = rig.ask("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(answer.text(), "ok", "{mode}");
        assert_eq!(*got.lock().expect("lock"), [wanted; 3], "{mode}");
        let calls = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
        let calls: Vec<_> = calls
            .lines()
            .filter(|line| line.starts_with("sluicegate_filter_calls_total{"))
            .collect();
        assert!(calls.iter().all(|line| line.ends_with(" 1")), "{calls:?}");
        // More than is kept is not sent again.
        got.lock().expect("lock").clear();
        let long = "x".repeat(2000);
        let answer = rig.ask(format!(
            "PUT /long HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n{long}"
        ));
        assert_eq!(
            answer.status,
            if mode == "whole" { 500 } else { 502 },
            "{mode}"
        );
        assert!(got.lock().expect("lock").len() <= 1, "{mode}");
    }
}

#[test]
fn a_stream_that_is_refused_is_repeated_with_the_changed_body() {
    let got: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let bodies = got.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut client = Client {
            raw: Raw::over(stream),
        };
        if client.raw.exactly(frames::PREFACE.len()).is_err() {
            return;
        }
        let _ = client.raw.send(frames::frame(frames::SETTINGS, 0, 0, &[]));
        let mut body: Vec<u8> = Vec::new();
        while let Some(frame) = client.next() {
            match frame.kind {
                frames::SETTINGS if !frame.payload.is_empty() => {
                    let ack = frames::frame(frames::SETTINGS, frames::ACK, 0, &[]);
                    let _ = client.raw.send(ack);
                }
                frames::DATA => {
                    body.extend(&frame.payload);
                    if body != b"<:hello>" {
                        continue;
                    }
                    let mut bodies = bodies.lock().expect("lock");
                    bodies.push(std::mem::take(&mut body));
                    let _ = client.raw.send(match bodies.len() {
                        1 => frames::frame(frames::RST_STREAM, 0, frame.stream, &[0, 0, 0, 7]),
                        _ => frames::headers(frame.stream, &[(":status", "200")]),
                    });
                }
                _ => {}
            }
        }
    });
    for mode in ["whole", "first", "transform"] {
        let rig = Plan::new(&[backend.address()])
            .listener(&filters(&[&format!(
                "settings: {{request: {{mode: {mode}, bytes: 50, act: mark}}}}"
            )]))
            .pool("protocol: http2\nretries: 1")
            .run_with(Start::new().file("bodies.wasm", module()));
        // No method that could be repeated otherwise.
        let answer = rig.ask("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(answer.status, 200, "{mode}");
        let target = if mode == "transform" { "/x" } else { "/edited" };
        assert_eq!(rig.record(target)["tries"], 2, "{mode}");
        let bodies = std::mem::take(&mut *got.lock().expect("lock"));
        assert_eq!(bodies, [b"<:hello>", b"<:hello>"], "{mode}");
    }
}

#[test]
fn verdicts_on_trailers_end_the_message_where_it_is() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        if head.starts_with("POST") && whole(&mut raw, &head).is_none() {
            return;
        }
        let _ = raw.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-b: 2\r\n\r\n",
        );
    });
    for (verdict, reason) in [
        ("drop", "filter-drop"),
        ("reset", "filter-reset"),
        ("fault", "filter-fault"),
    ] {
        for mode in ["watch", "whole"] {
            let does = format!("{{mode: {mode}, bytes: 50, act: none}}");
            let rig = rig_with(
                &backend,
                "",
                &[&format!(
                    "settings: {{trailers: {verdict}, request: {does}, response: {does}}}"
                )],
            );
            // Nothing was answered yet.
            let mut raw = rig.raw();
            raw.send("POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-a: 1\r\n\r\n")
                .expect("send");
            match verdict {
                "drop" => assert_eq!(end(&mut raw), (Vec::new(), End::Closed)),
                "reset" => assert_eq!(end(&mut raw), (Vec::new(), End::Reset)),
                _ => assert_eq!(raw.response().expect("a response").status, 500),
            }
            let target = if mode == "watch" { "/up" } else { "/edited" };
            assert_eq!(rig.record(target)["reason"], reason, "{mode}");
            // Here all but the end was.
            raw = rig.raw();
            raw.send("GET /down HTTP/1.1\r\nHost: x\r\n\r\n")
                .expect("send");
            let head = raw.head().expect("head");
            assert!(head.contains("chunked"), "{head}");
            let (rest, ended) = end(&mut raw);
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{mode} {verdict}");
            assert_eq!(ended == End::Reset, verdict == "reset", "{mode} {verdict}");
            assert_eq!(rig.record("/down")["reason"], reason, "{mode}");
            drop(raw);
            rig.settles();
        }
    }
}

#[test]
fn a_reload_while_a_head_is_held_leaves_the_exchange_its_filters() {
    let backend = mirror();
    let plan = |name: &str| {
        Plan::new(&[backend.address()]).listener(&filters(&[&format!(
            "settings: {{name: {name}, request: {{mode: whole, bytes: 50, act: mark}}}}"
        )]))
    };
    let rig = plan("old").run_with(Start::new().file("bodies.wasm", module()));
    let mut raw = rig.raw();
    raw.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        .expect("send");
    let begun = || {
        let gauge = "sluicegate_exchanges_active{listener=\"web\"}";
        rig.proxy.metric(gauge) > 0.0
    };
    assert!(eventually(DEADLINE, begun), "the exchange begins");
    let reloaded = rig.proxy.reload(&plan("new").yaml(rig.bind));
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    let answer = rig.ask("POST /y HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(answer.text(), "<new:hello>");
    raw.send("llo").expect("send");
    assert_eq!(raw.response().expect("a response").text(), "<old:hello>");
}

#[test]
fn a_filter_that_does_not_hold_the_head_leaves_100_to_the_endpoint() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
        let _ = raw.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = whole(&mut raw, &head).unwrap_or_default();
        let _ = raw.send(response(200, &String::from_utf8_lossy(&body)));
    });
    for (mode, act, wanted) in [
        ("watch", "none", "hi"),
        ("transform", "upper", "HI"),
        // It was announced to be too large.
        ("whole", "upper", "hi"),
    ] {
        let rig = rig(
            &backend,
            &[&format!(
                "settings: {{request: {{mode: {mode}, bytes: 1, over: bypass, act: {act}}}}}"
            )],
        );
        let mut raw = rig.raw();
        raw.send(
            "POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        )
        .expect("send");
        let head = raw.head().expect("interim");
        assert!(head.starts_with("HTTP/1.1 100"), "{mode}: {head}");
        raw.send("hi").expect("send");
        assert_eq!(raw.response().expect("a response").text(), wanted);
    }
}

#[test]
fn a_response_over_the_maximum_announced_or_not() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        let Ok(head) = raw.head() else { return };
        let _ = raw.send(match head.contains("/length") {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n123456",
            false => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n3\r\n456\r\n0\r\n\r\n",
        });
        let _ = raw.to_end();
        count.fetch_add(1, Ordering::SeqCst);
    });
    let mut asked = 0;
    for (over, on_error, status, reason) in [
        ("refuse", "fail", 502, "response-too-large"),
        ("refuse", "bypass", 502, "response-too-large"),
        ("fail", "fail", 500, "filter-fault"),
        ("fail", "bypass", 200, ""),
        ("bypass", "fail", 200, ""),
    ] {
        let rig = rig_with(
            &backend,
            "",
            &[&format!(
                "on-error: {on_error}, settings: {{response: {{mode: whole, bytes: 5, over: {over}, act: mark}}}}"
            )],
        );
        for target in ["/length", "/chunks"] {
            let answer = rig.get(target);
            asked += 1;
            assert_eq!(answer.status, status, "{over} {on_error} {target}");
            assert_eq!(answer.field("x-seen"), None);
            let record = rig.record(target);
            match reason {
                "" => assert_eq!(answer.text(), "123456"),
                reason => assert_eq!(record["reason"], reason, "{over} {target}"),
            }
        }
        // What is not read to its end is not kept either.
        let gone = || ended.load(Ordering::SeqCst) == asked;
        assert!(eventually(DEADLINE, gone), "{over}");
        rig.settles();
    }
}
