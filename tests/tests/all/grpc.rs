//! What gRPC asks of HTTP/2, frame by frame: heads that are the end, streams of small messages, statuses of the proxy's own.

use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;
use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::components;
use super::frames::{
    self, ACK, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, data, data_end, frame, headers, headers_open, setting,
    window_update,
};
use super::rig::{Plan, Rig, records};

const CALL: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Method"),
    (":authority", "site"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];
const OK_HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// A pool that speaks HTTP/2 to what `answer` says to each frame.
fn rig(answer: impl Fn(&Frame) -> Vec<u8> + Send + Sync + 'static) -> (Rig, Backend) {
    let backend = Backend::raw(move |stream, _| {
        let Some(mut client) = Client::accept(stream) else {
            return;
        };
        while let Some(frame) = client.next() {
            let bytes = answer(&frame);
            if client.raw.send(bytes).is_err() {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()])
        .pool("protocol: http2\nretries: 0")
        .top("workers: 1")
        .run();
    (rig, backend)
}

/// The frames of a stream to its end.
fn stream(client: &mut Client, id: u32) -> Vec<Frame> {
    let mut all = Vec::new();
    loop {
        let frame = client.next_of(&[HEADERS, DATA, RST_STREAM, GOAWAY]);
        assert_ne!(frame.kind, GOAWAY, "GOAWAY {}", frame.code());
        if frame.stream != id {
            continue;
        }
        let over = frame.ends() || frame.kind == RST_STREAM;
        all.push(frame);
        if over {
            return all;
        }
    }
}

fn body(frames: &[Frame]) -> Vec<u8> {
    let data = frames.iter().filter(|f| f.kind == DATA);
    data.flat_map(|f| f.payload.clone()).collect()
}

fn shape(frames: &[Frame]) -> Vec<(u8, bool, usize)> {
    let one = |f: &Frame| match f.kind {
        // What stands in a head is not of interest here, and compressed.
        HEADERS => (f.kind, f.ends(), 0),
        _ => (f.kind, f.ends(), f.payload.len()),
    };
    frames.iter().map(one).collect()
}

#[test]
fn a_head_that_is_the_end_stays_one() {
    let (rig, _backend) = rig(|frame| match frame.kind {
        // The status is the last digits of the path, which are not compressed for want of a shorter code.
        HEADERS => headers(
            frame.stream,
            &[(":status", "200"), ("grpc-status", "5"), ("x-end", "head")],
        ),
        _ => Vec::new(),
    });
    for (method, ended) in [
        ("GET", true),
        ("HEAD", true),
        ("POST", true),
        ("POST", false),
        ("PUT", false),
    ] {
        let mut client = Client::connect(rig.bind);
        let mut request = CALL.to_vec();
        request[0].1 = method;
        let open = if ended { headers } else { headers_open };
        client.raw.send(open(1, &request)).expect("send");
        let got = stream(&mut client, 1);
        assert_eq!(shape(&got), [(HEADERS, true, 0)], "{method} {ended}");
    }
    // curl shows that nothing was invented.
    for option in ["--http2-prior-knowledge", "--http1.1"] {
        let done = curl(&["-i", "-X", "POST", option, &rig.url("/")]);
        assert!(done.body.contains("grpc-status: 5"), "{done:?}");
        let invented = done.body.contains("content-length: 0");
        assert_eq!(invented, option == "--http1.1", "{}", done.body);
    }
}

#[test]
fn statuses_end_with_their_heads_where_they_did() {
    for status in [
        "200", "201", "204", "304", "400", "404", "429", "500", "503",
    ] {
        let (rig, _backend) = rig(move |frame| match frame.kind {
            HEADERS => headers(frame.stream, &[(":status", status)]),
            _ => Vec::new(),
        });
        let mut client = Client::connect(rig.bind);
        client.raw.send(headers(1, &CALL)).expect("send");
        let got = stream(&mut client, 1);
        assert_eq!(shape(&got), [(HEADERS, true, 0)], "{status}");
        assert_eq!(got[0].status().to_string(), status);
    }
    // A response of HTTP/1 that says that it is empty needs no frame of data either.
    let backend = Backend::http_with(|_| response(200, ""));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers(1, &CALL)).expect("send");
    assert_eq!(shape(&stream(&mut client, 1)), [(HEADERS, true, 0)]);
    let done = curl(&["-i", "--http2-prior-knowledge", &rig.url("/")]);
    assert!(done.body.contains("content-length: 0"), "{done:?}");
}

#[test]
fn trailers_follow_whatever_length_was_stated() {
    let (rig, _backend) = rig(|frame| match frame.kind {
        HEADERS => [
            headers_open(frame.stream, &[(":status", "200"), ("content-length", "0")]),
            headers(frame.stream, &[("grpc-status", "0")]),
        ]
        .concat(),
        _ => Vec::new(),
    });
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers(1, &CALL)).expect("send");
    let got = stream(&mut client, 1);
    assert_eq!(shape(&got), [(HEADERS, false, 0), (HEADERS, true, 0)]);
}

/// Sends back what it gets, and opens its windows as widely.
fn echo(frame: &Frame) -> Vec<u8> {
    match frame.kind {
        HEADERS => headers_open(frame.stream, &OK_HEAD),
        DATA if frame.ends() => headers(frame.stream, &[("grpc-status", "0")]),
        DATA => data(frame.stream, &frame.payload),
        _ => Vec::new(),
    }
}

/// What clients of gRPC do for each message that they read: windows of the stream and of the connection as wide as it was,
/// and a ping that measures the way.
fn acknowledged(id: u32, bytes: usize) -> Vec<u8> {
    let by = u32::try_from(bytes).expect("a small message");
    [
        window_update(id, by),
        window_update(0, by),
        frame(PING, 0, 0, &[0; 8]),
    ]
    .concat()
}

#[test]
fn small_messages_pay_for_the_frames_that_acknowledge_them() {
    let (rig, _backend) = rig(echo);
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers_open(1, &CALL)).expect("send");
    assert_eq!(client.next_of(&[HEADERS, GOAWAY]).kind, HEADERS);
    for round in 0..3000 {
        client.raw.send(data(1, b"\0\0\0\0\0")).expect("send");
        let got = client.next_of(&[DATA, GOAWAY]);
        assert_eq!(got.kind, DATA, "after {round} rounds");
        client.raw.send(acknowledged(1, 5)).expect("send");
    }
    client.raw.send(data_end(1, b"")).expect("send");
    assert_eq!(shape(&stream(&mut client, 1)), [(HEADERS, true, 0)]);
}

#[test]
fn a_client_may_acknowledge_many_messages_late() {
    const MESSAGES: usize = 6000;
    let (rig, _backend) = rig(|frame| match frame.kind {
        HEADERS => {
            let mut all = headers_open(frame.stream, &OK_HEAD);
            for _ in 0..MESSAGES {
                all.extend(data(frame.stream, b"\0\0\0\0\0"));
            }
            all.extend(headers(frame.stream, &[("grpc-status", "0")]));
            all
        }
        _ => Vec::new(),
    });
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers(1, &CALL)).expect("send");
    client.raw.send(headers(3, &CALL)).expect("send");
    let got = stream(&mut client, 1);
    let bytes: usize = got
        .iter()
        .filter(|f| f.kind == DATA)
        .map(|f| f.payload.len())
        .sum();
    assert_eq!(bytes, 5 * MESSAGES);
    let late: Vec<u8> = got
        .iter()
        .filter(|f| f.kind == DATA)
        .flat_map(|f| acknowledged(3, f.payload.len()))
        .collect();
    client.raw.send(late).expect("send");
    client.raw.send(headers(5, &CALL)).expect("send");
    stream(&mut client, 5);
}

#[test]
fn small_messages_wait_for_a_slow_endpoint_without_being_held_against_the_client() {
    const MESSAGES: usize = 20_000;
    // It takes the call after half a second, and then as many bytes as its window has room for.
    let backend = Backend::raw(|stream, _| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let Some(mut client) = Client::accept(stream) else {
            return;
        };
        let mut bytes = 0;
        while let Some(frame) = client.next() {
            if frame.kind != DATA {
                continue;
            }
            bytes += frame.payload.len();
            let answer = match frame.ends() {
                true => [
                    headers_open(frame.stream, &OK_HEAD),
                    data(frame.stream, bytes.to_string().as_bytes()),
                    headers(frame.stream, &[("grpc-status", "0")]),
                ]
                .concat(),
                false if frame.payload.is_empty() => Vec::new(),
                false => {
                    let by = u32::try_from(frame.payload.len()).expect("a frame");
                    [window_update(frame.stream, by), window_update(0, by)].concat()
                }
            };
            if client.raw.send(answer).is_err() {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()])
        .pool("protocol: http2")
        .run();
    let mut client = Client::connect(rig.bind);
    let mut call = headers_open(1, &CALL);
    for _ in 0..MESSAGES {
        call.extend(data(1, b"\0\0\0\0\x05hello"));
    }
    call.extend(data_end(1, b""));
    // So many fit into the windows that the proxy opens at the beginning, once its settings are acknowledged.
    client.next_of(&[WINDOW_UPDATE]);
    client.raw.send(frame(SETTINGS, ACK, 0, &[])).expect("send");
    client.raw.send(call).expect("send");
    let got = stream(&mut client, 1);
    assert_eq!(got[1].payload, (MESSAGES * 10).to_string().as_bytes());
}

#[test]
fn filters_that_look_at_bodies_leave_a_head_the_end() {
    let backend = ending_with_its_head();
    let rig = Plan::new(&[backend.address()])
        .pool("protocol: http2")
        .listener(
            "filters: [{module: bodies.wasm, settings: {response: {mode: watch, act: none}}}]",
        )
        .run_with(Start::new().file(
            "bodies.wasm",
            components::filter("bodies", "wasm32-unknown-unknown"),
        ));
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers(1, &CALL)).expect("send");
    assert_eq!(shape(&stream(&mut client, 1)), [(HEADERS, true, 0)]);
}

fn ending_with_its_head() -> Backend {
    Backend::raw(|stream, _| {
        let Some(mut client) = Client::accept(stream) else {
            return;
        };
        while let Some(frame) = client.next() {
            let end = headers(frame.stream, &[(":status", "200"), ("grpc-status", "5")]);
            if frame.kind == HEADERS && client.raw.send(end).is_err() {
                return;
            }
        }
    })
}

/// `:method: GET` in HPACK's static table.
const METHOD_GET: u8 = 0x82;

/// Answers a POST with a long stream of small messages, and a GET at once.
fn broadcast(messages: usize) -> (Rig, Backend) {
    rig(move |frame| {
        if frame.kind != HEADERS {
            return Vec::new();
        }
        let mut all = headers_open(frame.stream, &OK_HEAD);
        if frame.payload[0] == METHOD_GET {
            all.extend(data_end(frame.stream, b"next"));
            return all;
        }
        for _ in 0..messages {
            all.extend(data(frame.stream, b"0123456789"));
        }
        all
    })
}

fn ask(client: &mut Client, id: u32, method: &'static str) {
    let mut fields = CALL.to_vec();
    fields[0].1 = method;
    client.raw.send(headers(id, &fields)).expect("send");
}

#[test]
fn readers_that_stand_still_do_not_end_the_endpoints_connection_for_others() {
    let (rig, backend) = broadcast(5000);
    let mut slow = Client::connect(rig.bind);
    slow.raw.send(setting(4, 0)).expect("send");
    for n in 0..40 {
        ask(&mut slow, 1 + 2 * n, "POST");
        assert_eq!(slow.next_of(&[HEADERS, GOAWAY]).kind, HEADERS);
    }
    for n in 0..50 {
        let mut client = Client::connect(rig.bind);
        ask(&mut client, 1, "GET");
        assert_eq!(body(&stream(&mut client, 1)), b"next", "{n}");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn cancelled_streams_do_not_end_the_endpoints_connection_for_others() {
    let (rig, backend) = broadcast(400);
    for round in 0..12 {
        let mut client = Client::connect(rig.bind);
        for n in 0..50 {
            ask(&mut client, 1 + 2 * n, "POST");
        }
        assert_eq!(client.next_of(&[HEADERS, GOAWAY]).kind, HEADERS);
        for n in 0..50 {
            client.cancel(1 + 2 * n);
        }
        let mut other = Client::connect(rig.bind);
        ask(&mut other, 1, "GET");
        assert_eq!(body(&stream(&mut other, 1)), b"next", "{round}");
    }
    // One that has seen hundreds of them is left to those that use it.
    assert!(backend.connections() <= 3, "{}", backend.connections());
}

#[test]
fn windows_of_one_byte_after_the_other_are_a_flood_whatever_comes_of_them() {
    let backend = Backend::http_with(|_| response(200, &"b".repeat(100_000)));
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    client.raw.send(setting(4, 0)).expect("send");
    client.request(1, "/dribble");
    let mut moved = 0;
    let code = loop {
        if client.raw.send(window_update(1, 1)).is_err() {
            break None;
        }
        match client.next_of(&[DATA, GOAWAY]) {
            frame if frame.kind == GOAWAY => break Some(frame.code()),
            _ => moved += 1,
        }
        assert!(moved < 3000, "it goes on");
    };
    assert_eq!(code, Some(11), "after {moved} bytes");
    assert_eq!(rig.record("/dribble")["reason"], "client-flood");
    let counted = rig
        .proxy
        .metric("sluicegate_http2_goaways_total{listener=\"web\",reason=\"flood\"}");
    assert_eq!(counted, 1.0);
    assert!(
        rig.proxy.stderr().contains("reason=\"flood\""),
        "{}",
        rig.proxy.stderr()
    );
}

#[test]
fn a_client_that_breaks_the_protocol_is_named_in_log_and_metrics() {
    // Answers nothing.
    let backend = Backend::raw(|stream, _| {
        let _ = Raw::over(stream).to_end();
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    client.request(1, "/under-way");
    assert!(eventually(DEADLINE, || backend.connections() == 1));
    // Data of a stream that was never opened.
    client.raw.send(data(77, b"x")).expect("send");
    assert_eq!(client.next_of(&[GOAWAY]).code(), 1);
    assert_eq!(rig.record("/under-way")["reason"], "client-protocol");
    let counted = rig
        .proxy
        .metric("sluicegate_http2_goaways_total{listener=\"web\",reason=\"protocol\"}");
    assert_eq!(counted, 1.0);
}

#[test]
fn a_response_that_breaks_off_says_whose_failure_it_is() {
    for (sent, code) in [
        // The code that the endpoint gave.
        (Some(2), 2),
        (Some(8), 8),
        (Some(11), 11),
        // Its connection ends, or it is whole in its own eyes.
        (None, 2),
        (Some(0), 2),
    ] {
        let (rig, _backend) = rig(move |frame| match frame.kind {
            HEADERS => {
                let mut all = headers_open(frame.stream, &OK_HEAD);
                all.extend(data(frame.stream, b"some"));
                match sent {
                    Some(code) => {
                        all.extend(frames::frame(RST_STREAM, 0, frame.stream, &[0, 0, 0, code]));
                    }
                    // No frame of HTTP/2 is so large: the connection is over.
                    None => all.extend([0xff; 9]),
                }
                all
            }
            _ => Vec::new(),
        });
        let mut client = Client::connect(rig.bind);
        client.raw.send(headers(1, &CALL)).expect("send");
        let end = stream(&mut client, 1).pop().expect("an end");
        assert_eq!((end.kind, end.code()), (RST_STREAM, code), "{sent:?}");
    }
    let backend = Backend::raw(|mut stream: TcpStream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers(1, &CALL)).expect("send");
    let end = stream(&mut client, 1).pop().expect("an end");
    assert_eq!((end.kind, end.code()), (RST_STREAM, 2));
}

#[test]
fn answers_of_the_proxys_own_are_statuses_of_grpc() {
    let rig = Plan::new(&[refused()])
        .listener(
            "filters: [{module: \"builtin:ua-block\", settings: {deny: [bad], action: reply}}]",
        )
        .pool("retries: 0")
        .run();
    let call = |more: &[&str]| {
        let url = rig.url("/test.Service/Method");
        let fixed = ["-i", "--http2-prior-knowledge", "-d", "x", &url];
        curl(&[&fixed[..], more].concat()).body
    };
    let grpc = ["-H", "content-type: application/grpc+proto"];
    let down = call(&grpc);
    for line in [
        "HTTP/2 200",
        "content-type: application/grpc",
        "grpc-status: 14",
        "grpc-message: 502 Bad Gateway (connect-refused)%0Arequest id ",
        "proxy-status: sluicegate; error=connection_refused",
    ] {
        assert!(down.contains(line), "{line}: {down}");
    }
    assert!(!down.contains("content-length"), "{down}");
    let blocked = call(&[&grpc[..], &["-A", "bad"]].concat());
    assert!(blocked.contains("grpc-status: 7"), "{blocked}");
    // What cannot be read as a request is answered in the same way.
    let refused = call(&[&grpc[..], &["-H", "expect: what"]].concat());
    assert!(refused.contains("grpc-status: 2"), "{refused}");
    // Others get what they always got.
    assert!(call(&[]).contains("HTTP/2 502"));
    let record = |status: u64| {
        let is = |r: &&Value| r["status"] == status && r["reason"] == "connect-refused";
        records(&rig.proxy).iter().any(|r| is(&r))
    };
    assert!(eventually(DEADLINE, || record(200) && record(502)));
    let mut client = Client::connect(rig.bind);
    client.raw.send(headers_open(1, &CALL)).expect("send");
    assert_eq!(shape(&stream(&mut client, 1))[..1], [(HEADERS, true, 0)]);
}

#[test]
fn a_cookie_in_crumbs_counts_as_the_line_that_becomes_of_it() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let crumbs: Vec<String> = (0..400).map(|n| format!("c{n}={n}")).collect();
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/crumbs"),
        (":authority", "site"),
    ];
    fields.extend(crumbs.iter().map(|crumb| ("cookie", crumb.as_str())));
    let mut client = Client::connect(rig.bind);
    client
        .raw
        .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields)))
        .expect("send");
    assert_eq!(client.next_of(&[HEADERS]).status(), 200);
    let received = backend.received();
    assert_eq!(received[0].field("cookie"), Some(&*crumbs.join("; ")));

    // One line more than a limit allows, or one byte, is still too much.
    let rig = Plan::new(&[backend.address()])
        .listener("limits: {header-fields: 3, header-bytes: 1KiB}")
        .run();
    let status = |more: &[(&str, &str)]| {
        let all = [&fields[..4], more].concat();
        let mut client = Client::connect(rig.bind);
        client.raw.send(headers(1, &all)).expect("send");
        client.next_of(&[HEADERS]).status()
    };
    let crumb = ("cookie", "a=1");
    assert_eq!(status(&[crumb, crumb, crumb, ("x", "1"), ("y", "2")]), 200);
    assert_eq!(
        status(&[crumb, crumb, ("x", "1"), ("y", "2"), ("z", "3")]),
        431
    );
    // "cookie: " and the end of the line are 10 bytes; 1014 more are 202 crumbs of three and what joins them, and four bytes.
    let line = |crumbs: usize, last: &'static str| {
        let mut all = vec![("cookie", "a=1"); crumbs];
        all.push(("cookie", last));
        all
    };
    assert_eq!(status(&line(202, "abcd")), 200);
    assert_eq!(status(&line(202, "abcde")), 431);
}
