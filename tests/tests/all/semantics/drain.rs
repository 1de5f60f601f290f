//! The end of the process with every kind of client attached.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::{Plan, Rig, records};

const WS: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Answers `/slow` once it is let go; echoes after an upgrade.
fn backend(gate: &Arc<AtomicBool>) -> Backend {
    let gate = gate.clone();
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if head.contains("upgrade: websocket") {
                let _ =
                    raw.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
                while let Ok(byte) = raw.exactly(1) {
                    let _ = raw.send(byte);
                }
                return;
            }
            if head.starts_with("GET /slow") {
                let _ = eventually(DEADLINE, || gate.load(Ordering::SeqCst));
            }
            let _ = raw.send(response(200, "done"));
        }
    })
}

fn active(proxy: &Proxy, count: f64) {
    let series = "sluicegate_exchanges_active{listener=\"web\"}";
    assert!(eventually(DEADLINE, || proxy.metric(series) == count));
}

fn get(raw: &mut Raw) -> Option<String> {
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let answer = raw.response().ok()?;
    assert_eq!(answer.text(), "done");
    Some(answer.field("connection").unwrap_or_default().to_owned())
}

#[test]
fn term_with_everything_attached() {
    let gate = Arc::default();
    let (backend, echo) = (backend(&gate), Backend::echo());
    let relay = Addresses::new().free();
    let yaml = |bind| {
        let more = format!(
            "  - {{name: relay, bind: \"{relay}\", protocol: tcp, pool: echo}}\npools:\n  echo: {{endpoints: [\"{}\"]}}\n",
            echo.address()
        );
        let plan = Plan::new(&[backend.address()]).top("drain: {pre-stop: 1s, timeout: 3s}");
        let yaml = plan.yaml(bind);
        let (pools, rest) = yaml.split_once("listeners:").expect("listeners");
        let (listener, pool) = more.split_once("pools:\n").expect("pools");
        let (first, after) = rest.split_once("telemetry:").expect("telemetry");
        format!("{pools}{pool}listeners:{first}{listener}telemetry:{after}")
    };
    let bind = Addresses::new().free();
    let mut rig = Rig {
        proxy: Proxy::start(&yaml(bind)),
        bind,
    };
    let (mut idle, mut busy, mut slow) = (rig.raw(), rig.raw(), rig.raw());
    assert_eq!(get(&mut idle).as_deref(), Some(""));
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let sockets: Vec<Raw> = (0..8)
        .map(|_| {
            let mut raw = rig.raw();
            raw.send(WS).expect("send");
            let head = raw.head().expect("head");
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            raw
        })
        .collect();
    let mut session = Raw::connect(relay);
    session.send("ping").expect("send");
    assert_eq!(session.exactly(4).expect("echo"), b"ping");
    active(&rig.proxy, 9.0);

    let told = Instant::now();
    rig.proxy.signal(Signal::TERM);
    rig.proxy.wait_for_log("draining");
    // Until `pre-stop` is over it is not ready, and serves as ever.
    assert_eq!(rig.proxy.admin("GET", "/ready").expect("admin").status, 503);
    assert_eq!(
        rig.proxy.admin("GET", "/health").expect("admin").status,
        200
    );
    let (kept, fresh) = (get(&mut busy), get(&mut rig.raw()));
    if told.elapsed() < Duration::from_millis(900) {
        assert_eq!((kept.as_deref(), fresh.as_deref()), (Some(""), Some("")));
    }
    let ends: Vec<Duration> = std::thread::scope(|scope| {
        let ending: Vec<_> = sockets
            .into_iter()
            .map(|mut socket| {
                scope.spawn(move || {
                    // No Close frame, which would be made by somebody who has read the frames before it.
                    let rest = socket.to_end().unwrap_or_default();
                    assert_eq!(rest, b"");
                    told.elapsed()
                })
            })
            .collect();
        // Then it stops accepting, and closes what is idle.
        assert!(eventually(DEADLINE, || TcpStream::connect(bind).is_err()));
        assert!(told.elapsed() >= Duration::from_millis(1000), "too early");
        assert!(TcpStream::connect(relay).is_err(), "the relay as well");
        assert_eq!(idle.to_end().expect("closed in order"), b"");
        assert_eq!(busy.to_end().expect("closed in order"), b"");
        // What ran goes on to its end, and says that it is the last.
        gate.store(true, Ordering::SeqCst);
        let last = slow.response().expect("the answer");
        assert_eq!(
            (last.text().as_str(), last.field("connection")),
            ("done", Some("close"))
        );
        assert_eq!(slow.to_end().expect("closed in order"), b"");
        // A session goes on while there is time.
        if told.elapsed() < Duration::from_secs(3) {
            session.send("pong").expect("send");
            assert_eq!(session.exactly(4).expect("echo"), b"pong");
        }
        ending
            .into_iter()
            .map(|e| e.join().expect("a socket"))
            .collect()
    });
    let (first, last) = (
        ends.iter().min().expect("some"),
        ends.iter().max().expect("some"),
    );
    assert!(*first >= Duration::from_millis(1000), "{ends:?}");
    assert!(
        *last - *first > Duration::from_millis(200),
        "at once: {ends:?}"
    );
    // The deadline cuts the session, which would never have ended.
    let _ = session.to_end();
    assert_eq!(rig.proxy.wait().code(), Some(0));
    assert!(
        told.elapsed() >= Duration::from_millis(3900),
        "{:?}",
        told.elapsed()
    );
    let log = rig.proxy.stderr();
    assert!(
        log.contains("the drain took too long: what still runs is cut"),
        "{log}"
    );
    let all = records(&rig.proxy);
    let drained = |kind: &str| {
        let of = all
            .iter()
            .filter(|r| r["kind"] == kind && r["reason"] == "drained");
        of.count()
    };
    assert_eq!((drained("exchange"), drained("session")), (8, 1), "{all:?}");
    let cut = all
        .iter()
        .find(|r| r["target"] == "/ws")
        .expect("a WebSocket");
    assert_eq!(
        (&cut["status"], &cut["upgraded"]),
        (&101.into(), &true.into())
    );
    let slow = all
        .iter()
        .find(|r| r["target"] == "/slow")
        .expect("the slow one");
    assert!(slow["reason"].is_null(), "{slow}");
}

#[test]
fn nothing_left_is_drained_at_once_and_says_so() {
    let backend = Backend::http("web1");
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut idle = rig.raw();
    idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert_eq!(idle.response().expect("response").text(), "web1");
    let told = Instant::now();
    rig.proxy.signal(Signal::INT);
    assert_eq!(rig.proxy.wait().code(), Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(15),
        "it waited for nothing"
    );
    let log = rig.proxy.stderr();
    assert!(log.contains("draining timeout_s=30"), "{log}");
    assert!(log.contains("drained"), "{log}");
    assert!(!log.contains("cut"), "{log}");
}

#[test]
fn a_second_signal_cuts_even_before_the_listeners_close() {
    let gate = Arc::default();
    let backend = backend(&gate);
    let mut rig = Plan::new(&[backend.address()])
        .top("drain: {pre-stop: 1h, timeout: 1h}")
        .run();
    let mut slow = rig.raw();
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    active(&rig.proxy, 1.0);
    rig.proxy.signal(Signal::TERM);
    rig.proxy.wait_for_log("draining");
    rig.proxy.signal(Signal::INT);
    assert_eq!(rig.proxy.wait().code(), Some(0));
    let log = rig.proxy.stderr();
    assert!(
        log.contains("second signal: what still runs is cut"),
        "{log}"
    );
    assert!(slow.response().is_err());
    let all = records(&rig.proxy);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["reason"], "drained");
    assert!(
        all[0]["status"].is_null(),
        "nothing was answered: {}",
        all[0]
    );
}

#[test]
fn a_reload_while_draining_is_refused_at_once() {
    let gate = Arc::default();
    let backend = backend(&gate);
    let mut rig = Plan::new(&[backend.address()]).run();
    let mut slow = rig.raw();
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    active(&rig.proxy, 1.0);
    rig.proxy.signal(Signal::TERM);
    rig.proxy.wait_for_log("draining");
    let asked = Instant::now();
    let socket = rig.proxy.admin_socket();
    let answer = sluicegate(&["reload", "--admin", &socket.to_string_lossy()]);
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains("the server is ending"), "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{answer:?}");
    // The other signals change nothing either.
    rig.proxy.signal(Signal::HUP);
    rig.proxy.signal(Signal::USR1);
    gate.store(true, Ordering::SeqCst);
    assert_eq!(slow.response().expect("response").text(), "done");
    assert_eq!(rig.proxy.wait().code(), Some(0));
}
