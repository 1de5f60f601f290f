//! Relayed connections: both ends' closes, idle sessions, dead endpoints, stream filters.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, refused};
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start};

use super::guest::{DROP, Guest, NEXT, POOL, Phase, RESET, op, verdict};
use super::rig::{TLS, record, records, with_certificate};

struct Relay {
    proxy: Proxy,
    bind: SocketAddr,
}

/// A relay to pools `a`, `b`, … of the endpoints given for each; the first is the listener's own.
fn relay(start: Start, pools: &[&[SocketAddr]], listener: &str) -> Relay {
    let bind = Addresses::new().free();
    let mut yaml = String::from("pools:\n");
    for (name, endpoints) in ["a", "b", "c"].iter().zip(pools) {
        let list: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
        yaml += &format!(
            "  {name}: {{endpoints: [{}], balance: {}}}\n",
            list.join(", "),
            balance(listener)
        );
    }
    yaml += &format!(
        "listeners:\n  - name: relay\n    bind: \"{bind}\"\n    protocol: tcp\n    pool: a\n"
    );
    for line in listener.lines().filter(|line| !line.starts_with('#')) {
        yaml += &format!("    {line}\n");
    }
    yaml += "telemetry: {access-log: {format: json}}\n";
    Relay {
        proxy: start.run(&yaml),
        bind,
    }
}

fn balance(listener: &str) -> &'static str {
    if listener.contains("sticky") {
        "hash"
    } else {
        "round-robin"
    }
}

impl Relay {
    fn session(&self) -> Value {
        record(&self.proxy, |r| r["kind"] == "session")
    }

    fn settles(&self) {
        let series = "sluicegate_sessions_active{listener=\"relay\"}";
        let zero = || self.proxy.metric(series) == 0.0;
        assert!(
            sluicegate_tests::wait::eventually(sluicegate_tests::wait::DEADLINE, zero),
            "{series}"
        );
    }
}

#[test]
fn each_side_may_end_while_the_other_goes_on() {
    // Reads to the client's end, then answers: what a half-close is for.
    let backend = Backend::raw(|mut stream, _| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(format!("got {}", all.len()).as_bytes());
    });
    for options in ["", "tcp: {splice: false}", TLS] {
        let relay = relay(
            with_certificate(Start::new()),
            &[&[backend.address()]],
            options,
        );
        if options == TLS {
            // openssl ends its side with close_notify at the end of its input.
            let mut client = Command::new("openssl")
                .args([
                    "s_client",
                    "-quiet",
                    "-no_ign_eof",
                    "-connect",
                    &relay.bind.to_string(),
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl runs");
            client
                .stdin
                .take()
                .expect("stdin")
                .write_all(&[b'x'; 100])
                .expect("send");
            let _ = client.wait_with_output().expect("output");
            assert_eq!(relay.session()["bytes_in"], 100);
            continue;
        }
        let mut raw = Raw::connect(relay.bind);
        raw.send(vec![b'x'; 300_000]).expect("send");
        raw.stream().shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(
            raw.to_end().expect("the answer"),
            b"got 300000",
            "{options}"
        );
        let session = relay.session();
        assert_eq!(
            (&session["bytes_in"], &session["bytes_out"]),
            (&300_000.into(), &10.into())
        );
        assert!(session["reason"].is_null(), "{session}");
        relay.settles();
    }
    // The backend may end first, too.
    let backend = Backend::raw(|mut stream, _| {
        let _ = stream.write_all(b"banner");
        let _ = stream.shutdown(Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert_eq!(all, b"late");
    });
    let relay = relay(Start::new(), &[&[backend.address()]], "");
    let mut raw = Raw::connect(relay.bind);
    assert_eq!(raw.to_end().expect("banner"), b"banner");
    raw.send("late").expect("still open this way");
    drop(raw);
    assert_eq!(relay.session()["bytes_in"], 4);
}

#[test]
fn a_silent_session_ends() {
    let backend = Backend::echo();
    let relay = relay(
        Start::new(),
        &[&[backend.address()]],
        "timeouts: {stream-idle: 300ms}",
    );
    let mut raw = Raw::connect(relay.bind);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(60));
        raw.send("ping").expect("send");
        assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    }
    let started = Instant::now();
    let _ = raw.to_end();
    assert!(
        started.elapsed() >= Duration::from_millis(250)
            && started.elapsed() < Duration::from_secs(10)
    );
    assert_eq!(relay.session()["reason"], "idle-timeout");
    relay.settles();
}

#[test]
fn a_dead_endpoint_is_tried_elsewhere_and_none_left_is_a_close() {
    let backend = Backend::tcp("hello");
    let two = relay(Start::new(), &[&[refused(), backend.address()]], "");
    for _ in 0..6 {
        assert_eq!(Raw::connect(two.bind).to_end().expect("greeting"), b"hello");
    }
    let dead = relay(Start::new(), &[&[refused()]], "");
    assert_eq!(
        Raw::connect(dead.bind).to_end().expect("an orderly close"),
        b""
    );
    assert_eq!(dead.session()["reason"], "connect-refused");
    dead.settles();
}

#[test]
fn a_reset_of_one_side_reaches_the_other() {
    // A socket of its own: the harness keeps copies of a backend's, and a reset needs the last one closed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let backend = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.read_exact(&mut [0; 4]).expect("ping");
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    });
    let relay = relay(Start::new(), &[&[address]], "");
    let mut raw = Raw::connect(relay.bind);
    raw.send("ping").expect("send");
    assert!(raw.to_end().is_err(), "no reset");
    backend.join().expect("the backend");
    let session = relay.session();
    assert_eq!(
        (&session["bytes_in"], &session["reason"]),
        (&4.into(), &"upstream-truncated".into())
    );
    relay.settles();
}

#[test]
fn sessions_of_one_source_stick() {
    let (one, two) = (Backend::tcp("one"), Backend::tcp("two"));
    let relay = relay(
        Start::new(),
        &[&[one.address(), two.address()]],
        "filters: [{module: \"builtin:sticky\", settings: {by: source}}]",
    );
    let first = Raw::connect(relay.bind).to_end().expect("greeting");
    for _ in 0..10 {
        assert_eq!(Raw::connect(relay.bind).to_end().expect("greeting"), first);
    }
}

#[test]
fn connect_filters_drop_reset_and_fail() {
    let backend = Backend::tcp("hello");
    for (guest, reason, orderly) in [
        (
            Guest::default().answers(Phase::Connect, &verdict(DROP, &[])),
            "filter-drop",
            true,
        ),
        (
            Guest::default().answers(Phase::Connect, &verdict(RESET, &[])),
            "filter-reset",
            false,
        ),
        (
            Guest::default().runs(Phase::Connect, "unreachable"),
            "filter-fault",
            true,
        ),
    ] {
        let start = Start::new().file("guest.wasm", guest.build());
        let relay = relay(
            start,
            &[&[backend.address()]],
            "filters: [{module: guest.wasm}]",
        );
        // A reset may come before the client has looked whether it is connected.
        let connected = std::net::TcpStream::connect(relay.bind);
        let end = connected.and_then(|stream| Raw::over(stream).to_end());
        match orderly {
            true => assert_eq!(end.expect("an orderly close"), b"", "{reason}"),
            false => assert!(end.is_err(), "{reason}: {end:?}"),
        }
        assert_eq!(relay.session()["reason"], reason);
        relay.settles();
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn client_hello_filters_route_by_server_name() {
    let (plain, tls) = (
        Backend::tcp("plain"),
        Backend::raw(|stream, _| {
            // A ClientHello arrives whole although the filter has read it.
            let mut raw = Raw::over(stream);
            if raw.exactly(3).is_ok_and(|bytes| bytes == [0x16, 3, 1]) {
                let _ = raw.send("tls");
            }
        }),
    );
    // Routes to the second pool when the SNI (slot 10 at 64 + 10 * 8) has the length of `b.test.example`.
    let mut guest = Guest::default().pool("b");
    let route = guest.pair(&verdict(NEXT, &[op(POOL, "", &0u32.to_le_bytes())]));
    let next = guest.pair(&[]);
    let body = format!(
        "(if (result i32) (i32.eq (i32.load (i32.add (local.get $head) (i32.const 148))) (i32.const 14))
           (then (i32.const {route})) (else (i32.const {next})))"
    );
    let guest = guest.runs(Phase::ClientHello, &body).build();
    let start = Start::new().file("guest.wasm", guest);
    let pools: &[&[SocketAddr]] = &[&[plain.address()], &[tls.address()]];
    let relay = relay(start, pools, "filters: [{module: guest.wasm}]");
    for (name, expected) in [("b.test.example", "b"), ("other.example", "a")] {
        let _ = Command::new("timeout")
            .args([
                "5",
                "openssl",
                "s_client",
                "-connect",
                &relay.bind.to_string(),
                "-servername",
                name,
            ])
            .stdin(Stdio::null())
            .output()
            .expect("openssl runs");
        let sessions = || {
            records(&relay.proxy)
                .into_iter()
                .any(|r| r["pool"] == expected)
        };
        assert!(
            sluicegate_tests::wait::eventually(sluicegate_tests::wait::DEADLINE, sessions),
            "{name}"
        );
    }
    // What is no TLS goes to the listener's pool without waiting for more.
    let mut raw = Raw::connect(relay.bind);
    raw.send("GET / HTTP/1.0\r\n\r\n").expect("send");
    assert_eq!(raw.to_end().expect("greeting"), b"plain");
    drop(raw);
    relay.settles();
}

#[test]
fn first_bytes_filters_see_them_and_they_arrive() {
    let echo = Backend::echo();
    // Drops what begins with `X`: slot 18 at 64 + 18 * 8 is (offset, length) of the first bytes.
    let mut guest = Guest::default().first_bytes(4);
    let drop = guest.pair(&verdict(DROP, &[]));
    let next = guest.pair(&[]);
    let body = format!(
        "(if (result i32) (i32.eq (i32.const 88) (i32.load8_u (i32.add (local.get $head)
            (i32.load (i32.add (local.get $head) (i32.const 208))))))
           (then (i32.const {drop})) (else (i32.const {next})))"
    );
    let guest = guest.runs(Phase::FirstBytes, &body).build();
    let start = Start::new().file("guest.wasm", guest);
    let relay = relay(
        start,
        &[&[echo.address()]],
        "filters: [{module: guest.wasm}]",
    );
    let mut raw = Raw::connect(relay.bind);
    raw.send("XYZW").expect("send");
    assert_eq!(raw.to_end().expect("close"), b"");
    let mut raw = Raw::connect(relay.bind);
    raw.send("pi").expect("send");
    raw.send("ng pong").expect("send");
    assert_eq!(raw.exactly(9).expect("echo"), b"ping pong");
    // Fewer than asked for are shown when the client ends.
    let mut raw = Raw::connect(relay.bind);
    raw.send("ab").expect("send");
    raw.stream().shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(raw.to_end().expect("echo"), b"ab");
}
