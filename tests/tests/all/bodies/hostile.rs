//! Body filters that mean harm: neither memory nor what shares their worker suffers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::super::rig::{calls, calls_meanwhile};
use super::module;

const MEBIBYTE: usize = 1 << 20;

/// A listener of the hostile filters and one without any, on one worker.
struct Bench {
    proxy: Proxy,
    bad: SocketAddr,
    good: SocketAddr,
}

impl Bench {
    /// `filters` are named in the order in which they are listed: `f0`, `f1` and so on.
    fn new(backend: &Backend, filters: &[String]) -> Self {
        let mut addresses = Addresses::new();
        let (bad, good) = (addresses.free(), addresses.free());
        let mut listed = Vec::new();
        let mut defined = String::new();
        for (n, filter) in filters.iter().enumerate() {
            listed.push(format!("f{n}"));
            defined += &format!("  f{n}: {{module: bodies.wasm, {filter}}}\n");
        }
        let yaml = format!(
            "workers: 1\npools: {{web: {{endpoints: [\"{}\"]}}}}\nfilters:\n{defined}listeners:\n\
             \x20 - {{name: bad, bind: \"{bad}\", protocol: http, pool: web, filters: [{}]}}\n\
             \x20 - {{name: good, bind: \"{good}\", protocol: http, pool: web}}\n\
             telemetry: {{access-log: {{format: json}}}}\n",
            backend.address(),
            listed.join(", ")
        );
        let proxy = Start::new().file("bodies.wasm", module()).run(&yaml);
        Self { proxy, bad, good }
    }

    fn calls(&self) -> f64 {
        calls(&self.proxy, "f0")
    }

    fn calls_meanwhile(&self) -> f64 {
        calls_meanwhile(&self.proxy, "f0", self.good)
    }
}

/// Sends bodies without end until told to stop.
fn uploads(bad: SocketAddr, stop: &AtomicBool, sent: &AtomicUsize) {
    let piece = [
        format!("{:x}\r\n", 256 << 10).into_bytes(),
        vec![b'x'; 256 << 10],
        b"\r\n".to_vec(),
    ]
    .concat();
    while !stop.load(Ordering::SeqCst) {
        let mut stream = TcpStream::connect(bad).expect("connect");
        let head = "POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        if stream.write_all(head.as_bytes()).is_err() {
            continue;
        }
        while !stop.load(Ordering::SeqCst) && stream.write_all(&piece).is_ok() {
            sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
    }
}

/// Answers what comes at once, whatever body there may still be.
fn at_once() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if head.starts_with("POST") {
                let _ = raw.to_end();
                return;
            }
            let _ = raw.send(response(200, "ok"));
        }
    })
}

#[test]
fn a_filter_that_works_hard_and_gives_nothing_lets_others_have_their_turn() {
    let backend = at_once();
    for filter in [
        // Some milliseconds for each piece, as often as there is one.
        "limits: {deadline: 1s}, settings: {request: {mode: transform, act: toil, bytes: 2000000}}",
        // It never ends by itself; each piece costs it an instance, and passes.
        "on-error: bypass, settings: {request: {mode: transform, act: spin}}",
        "on-error: bypass, settings: {request: {mode: watch, act: spin}}",
    ] {
        let bench = Bench::new(&backend, &[filter.to_owned()]);
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let before = bench.proxy.resources().resident_bytes;
        std::thread::scope(|scope| {
            scope.spawn(|| uploads(bench.bad, &stop, &sent));
            let begun = eventually(DEADLINE, || bench.calls() > 20.0);
            let calls = begun.then(|| bench.calls_meanwhile());
            stop.store(true, Ordering::SeqCst);
            let calls = calls.expect("the filter is called");
            // An exchange takes some turns of the worker, between each two of which there is a call.
            assert!(calls < 60.0, "{calls} calls at a time: {filter}");
        });
        let grown = bench
            .proxy
            .resources()
            .resident_bytes
            .saturating_sub(before);
        assert!(grown < 32 << 20, "grew by {grown} bytes: {filter}");
        bench.proxy.settled();
    }
}

#[test]
fn a_filter_that_swallows_all_takes_no_memory() {
    const BODY: usize = 200 * MEBIBYTE;
    let backend = Backend::http("ok");
    let bench = Bench::new(
        &backend,
        &["settings: {request: {mode: transform, act: swallow}}".to_owned()],
    );
    let before = bench.proxy.resources().resident_bytes;
    let mut raw = Raw::connect(bench.bad);
    raw.send(format!(
        "POST /bad HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n"
    ))
    .expect("send");
    let piece = vec![b'x'; MEBIBYTE];
    for _ in 0..BODY / MEBIBYTE {
        raw.send(&piece).expect("send");
    }
    assert_eq!(raw.response().expect("a response").text(), "ok");
    assert_eq!(backend.received()[0].body, b"");
    let grown = bench
        .proxy
        .resources()
        .resident_bytes
        .saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
}

#[test]
fn pieces_that_expand_are_held_back_by_who_takes_them() {
    // Each piece becomes a megabyte, and each piece of that, three times over: a byte from the endpoint is 16 million
    // for the client.
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        let Ok(head) = raw.head() else { return };
        if head.contains("/beside") {
            let _ = raw.send(response(200, "ok"));
            return;
        }
        let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..104_857_600 / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let flood = format!("act: flood, bytes: {}", MEBIBYTE - 64);
    let filter = format!("settings: {{response: {{mode: transform, {flood}}}}}");
    let bench = Bench::new(&backend, &[filter.clone(), filter.clone(), filter]);
    let before = bench.proxy.resources().resident_bytes;
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(bench.bad)).collect();
    for raw in &mut clients {
        raw.send("GET /bad HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert!(raw.head().expect("head").starts_with("HTTP/1.1 200"));
    }
    // One reads for a while, the others do not.
    for _ in 0..64 {
        clients[0].exactly(MEBIBYTE).expect("more");
    }
    assert!(bench.calls_meanwhile() < 60.0);
    // An answer of each filter, what was read at once, and what waits for the client; in each of 8 exchanges.
    let grown = bench
        .proxy
        .resources()
        .resident_bytes
        .saturating_sub(before);
    assert!(
        grown < 8 * (5 * MEBIBYTE as u64) + (16 << 20),
        "grew by {grown} bytes"
    );
    // Of 100 MB each; the kernel takes some by itself.
    assert!(taken.load(Ordering::SeqCst) < 8 * 50 * MEBIBYTE);
    drop(clients);
    bench.proxy.settled();
}

#[test]
fn an_answer_over_the_limit_of_output_is_a_fault_in_each_mode() {
    let backend = Backend::http("ok");
    for mode in ["first", "whole", "transform"] {
        for (bytes, status) in [(60_000, 200), (70_000, 500)] {
            let filter = format!(
                "limits: {{output: 64KiB}}, settings: {{request: {{mode: {mode}, act: flood, bytes: {bytes}}}}}"
            );
            let bench = Bench::new(&backend, &[filter]);
            let mut raw = Raw::connect(bench.bad);
            raw.send("POST /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
                .expect("send");
            let answer = raw.response().expect("a response");
            assert_eq!(answer.status, status, "{mode} {bytes}");
            if status == 200 {
                let got = backend.received().pop().expect("a request");
                assert_eq!(got.body.len(), bytes, "{mode}");
            }
        }
    }
}
