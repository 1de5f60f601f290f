//! A 101 is a response like others: filters see it, and may make another of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, field};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::each;
use crate::guest::{DROP, Guest, NEXT, Phase, REPLY, RESET, SET, STATUS, op, verdict};
use crate::rig::{Plan, Rig};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Switches protocols and echoes; counts the bytes it was sent afterwards.
fn websocket(bytes: &Arc<AtomicUsize>) -> Backend {
    let bytes = bytes.clone();
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send(
                "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Secret: 1\r\n\r\n",
            );
            while let Ok(byte) = raw.exactly(1) {
                bytes.fetch_add(1, Ordering::SeqCst);
                let _ = raw.send(byte);
            }
        }
    })
}

fn rig(backend: &Backend, guest: Vec<u8>) -> Rig {
    Plan::new(&[backend.address()])
        .listener("filters: [{module: guest.wasm}]")
        .run_with(Start::new().file("guest.wasm", guest))
}

#[test]
fn a_101_passes_the_response_filters_and_stays_one() {
    let bytes = Arc::default();
    let backend = websocket(&bytes);
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:headers\", settings: {response: [{set: x-seen, value: \"yes\"}, {remove: x-secret}]}}]",
        )
        .run();
    let mut raw = rig.raw();
    raw.send(UPGRADE).expect("send");
    let head = raw.head().expect("head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for (name, value) in [
        ("x-seen", Some("yes")),
        ("x-secret", None),
        ("upgrade", Some("websocket")),
        ("connection", Some("upgrade")),
        ("via", Some("1.1 sluicegate")),
        ("content-length", None),
    ] {
        assert_eq!(field(&head, name), value, "{name}");
    }
    raw.send("ping").expect("send");
    assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    drop(raw);
    let record = rig.record("/ws");
    assert_eq!(
        (&record["status"], &record["upgraded"]),
        (&101.into(), &true.into())
    );
}

#[test]
fn a_filter_may_refuse_a_101_and_no_raw_byte_moves() {
    let status = || op(STATUS, "", &403u16.to_le_bytes());
    let seen = || op(SET, "x-seen", b"yes");
    let cases = [
        (
            "reply",
            verdict(REPLY, &[status(), seen()]),
            Some("filter-reply"),
        ),
        ("status", verdict(NEXT, &[status(), seen()]), None),
        ("drop", verdict(DROP, &[]), Some("filter-drop")),
        ("reset", verdict(RESET, &[]), Some("filter-reset")),
        ("fault", vec![99], Some("filter-fault")),
    ];
    each(
        &cases,
        |case| case.0.to_owned(),
        |(name, block, reason)| {
            let (name, reason) = (*name, *reason);
            let bytes = Arc::default();
            let backend = websocket(&bytes);
            let guest = Guest::default().answers(Phase::Response, block).build();
            let rig = rig(&backend, guest);
            let mut raw = rig.raw();
            raw.send(format!("{UPGRADE}early")).expect("send");
            match name {
                "reply" | "status" => {
                    let answer = raw.response().expect("response");
                    assert_eq!(
                        (
                            answer.status,
                            answer.field("x-seen"),
                            answer.text().as_str()
                        ),
                        (403, Some("yes"), ""),
                        "{name}"
                    );
                    assert_eq!(answer.field("upgrade"), None, "{name}");
                }
                "drop" => assert_eq!(raw.to_end().expect("a FIN"), b""),
                "reset" => assert!(raw.to_end().is_err()),
                _ => assert_eq!(raw.response().expect("response").status, 500),
            }
            drop(raw);
            let record = rig.record("/ws");
            assert_eq!(record["reason"].as_str(), reason, "{name}");
            assert_ne!(record["upgraded"], true, "{name}");
            assert_eq!(bytes.load(Ordering::SeqCst), 0, "{name}");
            rig.settles();
            let left = || {
                let active = "sluicegate_endpoint_active{pool=\"web\",endpoint=";
                rig.proxy
                    .metric(&format!("{active}\"{}\"}}", backend.address()))
                    == 0.0
            };
            assert!(eventually(DEADLINE, left), "{name}");
        },
    );
}

#[test]
fn a_sticky_cookie_is_given_with_a_101() {
    let bytes = Arc::default();
    let backend = websocket(&bytes);
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:sticky\", settings: {by: {cookie: {name: s, secret: sixteen-bytes-or-more}}}}]",
        )
        .run();
    let mut raw = rig.raw();
    raw.send(UPGRADE).expect("send");
    let head = raw.head().expect("head");
    assert!(field(&head, "set-cookie").is_some(), "{head}");
}
