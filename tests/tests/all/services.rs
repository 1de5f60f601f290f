//! What handlers of `wasi:http` 0.3 have beside those of 0.2: tasks, streams and futures of the component model.

use std::io::{Read, Write};

use sluicegate_tests::wait::{DEADLINE, eventually};

use super::components::service;
use super::handlers::start;

/// What may lie between a guest and a client that does not read: the kernel's buffers and a few pieces.
const HELD_BYTES_MAX: usize = 16 << 20;

#[test]
fn a_body_that_is_handed_back_as_it_came_passes_by() {
    let rig = start(service(), "{memory: 8MiB}");
    let body: Vec<u8> = (0..10 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut raw = rig.raw();
    let sender = raw.stream().try_clone().expect("a second handle");
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = &sender;
            let length = body.len();
            let head =
                format!("POST /pass HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            sender.write_all(head.as_bytes()).expect("head");
            sender.write_all(&body).expect("body");
        });
        raw.response().expect("an answer")
    });
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
}

#[test]
fn an_error_of_its_own_is_told() {
    let rig = start(service(), "{}");
    assert_eq!(rig.get("/error").status, 502);
    assert_eq!(rig.record("/error")["reason"], "handler-fault");
    rig.proxy.wait_for_log("of its own");
    for target in ["/broken", "/long"] {
        let mut raw = rig.raw();
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .expect("send");
        assert!(raw.response().is_err(), "{target}");
        assert_eq!(rig.record(target)["reason"], "handler-fault", "{target}");
    }
}

#[test]
fn what_nobody_ends_is_ended_by_the_deadline() {
    let rig = start(service(), "{deadline: 300ms, instances: 1}");
    let mut raw = rig.raw();
    raw.send("GET /forgotten HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    assert!(raw.response().is_err());
    let record = rig.record("/forgotten");
    assert_eq!(record["reason"], "handler-timeout");
    assert_eq!(rig.get("/").status, 200);
}

#[test]
fn yielding_is_computing_too() {
    let rig = start(service(), "{cpu: 100ms, deadline: 60s}");
    assert_eq!(rig.get("/yield").status, 504);
    assert_eq!(rig.record("/yield")["reason"], "handler-timeout");
}

#[test]
fn streams_tasks_and_random_bytes_have_bounds() {
    let rig = start(service(), "{deadline: 20s, cpu: 10s}");
    for target in ["/streams", "/tasks"] {
        assert_eq!(rig.get(target).status, 502, "{target}");
        assert_eq!(rig.record(target)["reason"], "handler-fault", "{target}");
    }
    assert_eq!(rig.get("/random").text(), "65536");
    assert_eq!(rig.get("/").status, 200);
}

#[test]
fn a_client_that_does_not_read_holds_the_guest_back() {
    let rig = start(service(), "{}");
    let mut raw = rig.raw();
    raw.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    raw.head().expect("a head");
    let written = || {
        let log = rig.proxy.stderr();
        let last = log.rsplit("wrote ").next().and_then(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().ok()
        });
        last.unwrap_or(0)
    };
    // It stands still once nothing more fits.
    let mut before = 0;
    let stood = eventually(DEADLINE, || {
        let now = written();
        let stands = now > 0 && now == before;
        before = now;
        stands
    });
    assert!(stood, "the guest never stops: {before} bytes");
    assert!(before < HELD_BYTES_MAX, "{before} bytes are held");
    // And goes on when the client does.
    let mut some = vec![0; 1 << 20];
    raw.stream().read_exact(&mut some).expect("the body");
    drop(raw);
    let left = || rig.record("/endless")["reason"] == "client-gone";
    assert!(eventually(DEADLINE, left));
}
