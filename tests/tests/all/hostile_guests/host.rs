//! What the host does for a filter outside its calls is bounded as well: predicates, edits, routes, log lines, and
//! making the next instance.

use std::time::{Duration, Instant};

use sluicegate_tests::backend::{Backend, refused};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::super::guest::{BODY, Guest, NEXT, NOTHING_MORE, Phase, REPLY, op, verdict};
use super::super::rig::Plan;
use super::{APPEND, answering, bad_for_root};

#[test]
fn a_predicate_that_takes_too_long_is_a_fault() {
    let backend = Backend::http("web1");
    let mut guest = Guest::default();
    // A glob that is slow on one kind of path, five hundred times over.
    let pattern = format!("*{}b", "a".repeat(4000));
    let text = guest.put(pattern.as_bytes());
    let mut tests = [3, text, pattern.len() as u32, 0, 0].repeat(500);
    tests.extend([11, 500, 0, 0, 0]);
    let tests = guest.words(&tests);
    let mut plan = vec![0, 1, tests, 501, 2, 0, 0, 2, 0, 0, 0, 0, 0];
    plan.extend(NOTHING_MORE);
    let plan = guest.words(&plan);
    let guest = guest
        .runs(Phase::Request, "unreachable")
        .configures(&format!("(i32.const {plan})"))
        .build();
    for (policy, status) in [("fail", 500), ("bypass", 200)] {
        let rig = Plan::new(&[backend.address()])
            .listener(&format!(
                "filters: [{{module: g.wasm, on-error: {policy}}}]"
            ))
            .run_with(Start::new().file("g.wasm", &guest));
        let slow = format!("/{}", "a".repeat(16_000));
        let mut raw = rig.raw();
        for _ in 0..3 {
            for (target, status) in [(slow.as_str(), status), ("/quick", 200)] {
                raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                    .expect("send");
                assert_eq!(raw.response().expect("response").status, status, "{policy}");
            }
        }
        rig.proxy
            .wait_for_log("predicate of its plan takes too long");
        let metrics = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
        assert!(
            metrics
                .lines()
                .any(|line| line.ends_with("kind=\"deadline\"} 3")),
            "{metrics}"
        );
    }
}

#[test]
fn filters_one_after_the_other_do_not_make_a_head_without_end() {
    let backend = Backend::http("web1");
    let edits = verdict(NEXT, &vec![op(APPEND, "x-a", b"b"); 1024]);
    let add = |phase| Guest::default().answers(phase, &edits).build();
    let chain = |count: usize| {
        let one = "{module: g.wasm}";
        format!("filters: [{}]", vec![one; count].join(", "))
    };
    for phase in [Phase::Request, Phase::Response] {
        for (count, status) in [(2, 200), (20, 500)] {
            let rig = Plan::new(&[backend.address()])
                .listener(&chain(count))
                .run_with(Start::new().file("g.wasm", add(phase)));
            let answer = rig.get("/");
            assert_eq!(answer.status, status, "{phase:?} {count}");
            if status == 500 {
                rig.proxy.wait_for_log("the head would be too large");
                assert_eq!(rig.record("/")["reason"], "filter-fault");
            }
        }
    }
}

#[test]
fn absurd_routes_end_as_other_exchanges_do() {
    let number = |code, n: u32| op(code, "", &n.to_le_bytes());
    let (web1, nobody) = (Backend::http("web1"), refused());
    let cases = [
        (
            "retries without end",
            vec![number(37, u32::MAX)],
            nobody,
            &[502][..],
        ),
        (
            "no time for a try",
            vec![number(35, 0)],
            web1.address(),
            // An answer may be there as soon as it is looked for.
            &[200, 504],
        ),
        (
            "no time at all",
            vec![number(36, 0)],
            web1.address(),
            &[504],
        ),
        (
            "all the time there is",
            vec![number(35, u32::MAX), number(36, u32::MAX)],
            web1.address(),
            &[200],
        ),
        (
            "an endpoint that is none",
            vec![op(34, "", b"no such")],
            web1.address(),
            &[200],
        ),
        (
            "a key of nothing but zeros",
            vec![op(33, "", &[0; 1024])],
            web1.address(),
            &[200],
        ),
        (
            "the last pool is the one",
            vec![number(32, 0), number(32, 1), number(32, 0)],
            web1.address(),
            &[200],
        ),
    ];
    let mut failures = Vec::new();
    for (name, ops, endpoint, status) in cases {
        let guest = Guest::default()
            .pool("web")
            .pool("web")
            .answers(Phase::Request, &verdict(NEXT, &ops))
            .build();
        let rig = Plan::new(&[endpoint])
            .listener("filters: [{module: g.wasm}]")
            .run_with(Start::new().file("g.wasm", guest));
        let got = rig.get("/").status;
        if !status.contains(&got) {
            failures.push(format!("{name}: {got} and not of {status:?}"));
        }
        // A retry is waited for a quarter of a second at most, and there are few.
        let tries = rig.record("/")["tries"].as_u64().unwrap_or(u64::MAX);
        if tries > 20 {
            failures.push(format!("{name}: {tries} tries"));
        }
        rig.settles();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// As much as `limits.output` can allow at all.
#[test]
fn a_reply_as_large_as_may_be_arrives_whole() {
    const LENGTH: u32 = 60 << 20;
    let mut guest = Guest::default();
    let begin = guest.put(&verdict(REPLY, &[op(BODY, "", b"")])[..5]);
    // The verdict and the head of its one operation, with the length of the body, before a body of zeros.
    let body = format!(
        "(drop (memory.grow (i32.const 1000)))
         (memory.copy (i32.const 65536) (i32.const {begin}) (i32.const 5))
         (i32.store (i32.const 65541) (i32.const {LENGTH}))
         {}",
        answering(65536, 9 + LENGTH)
    );
    let guest = guest.runs(Phase::Request, &body).build();
    let backend = Backend::http("web1");
    let limits = "limits: {memory: 128MiB, output: 64MiB, deadline: 5s}";
    let rig = Plan::new(&[backend.address()])
        .listener(&format!("filters: [{{module: g.wasm, {limits}}}]"))
        .run_with(Start::new().file("g.wasm", guest));
    let before = rig.proxy.settled();
    for _ in 0..2 {
        let answer = rig.get("/");
        assert_eq!((answer.status, answer.body.len()), (200, LENGTH as usize));
    }
    // The guest keeps what it grew to.
    rig.proxy.assert_nothing_left(before, 192 << 20);
}

#[test]
fn a_flood_of_log_lines_is_cut_in_each_call() {
    let backend = Backend::http("web1");
    let guest = r#"(module
      (import "sluicegate:filter/log@0.1.0" "log" (func $log (param i32 i32 i32)))
      (memory (export "memory") 4)
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
      (func (export "sluicegate:filter/configuration@0.1.0#configure") (param i32 i32) (result i32)
        (i32.store8 (i32.const 1028) (i32.const 1)) (i32.const 1024))
      (func (export "sluicegate:filter/http-request@0.1.0#on-request") (param i32 i32) (result i32)
        (local $n i32)
        (local.set $n (i32.const 1000))
        (loop $l
          (call $log (i32.const 3) (i32.const 2048) (i32.const 24))
          (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        ;; the last one is longer than a line may be
        (call $log (i32.const 3) (i32.const 70000) (i32.const 60000))
        (i64.store (i32.const 512) (i64.const 0)) (i32.const 512))
      (data (i32.const 2048) "flood\0a2026 forged: \1b[2J!"))"#;
    let rig = Plan::new(&[backend.address()])
        .listener("filters: [{module: g.wasm, capabilities: [log], limits: {host-calls: 1001}}]")
        .run_with(Start::new().file("g.wasm", wat::parse_str(guest).expect("a guest")));
    for n in 0..3 {
        assert_eq!(rig.get(&format!("/{n}")).text(), "web1");
    }
    let lines = |text: &str| rig.proxy.stderr().matches(text).count();
    assert!(eventually(DEADLINE, || lines(
        "further lines of this call are dropped"
    ) == 3));
    assert_eq!(lines("flood"), 3 * 63, "{}", rig.proxy.stderr());
    assert!(!rig.proxy.stderr().contains('\x1b'));
    assert!(
        !rig.proxy
            .stderr()
            .lines()
            .any(|line| line.starts_with("2026 forged")),
        "{}",
        rig.proxy.stderr()
    );
}

/// A filter that is slow to configure and traps at once: workers must not make its instances themselves.
#[test]
fn instances_that_are_slow_to_make_are_not_made_by_workers() {
    let backend = Backend::http("web1");
    // Counts to a hundred million, which takes longer than a call may.
    let count = "(local $n i32)
        (local.set $n (i32.const 100000000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let guest = bad_for_root(Guest::default(), Phase::Request, "unreachable");
    // A start function runs whenever an instance is made.
    let guest = guest
        .item(&format!("(func $begin {count}) (start $begin)"))
        .build();
    let rig = Plan::new(&[backend.address()])
        .listener("filters: [{module: g.wasm}]")
        .top("workers: 1")
        .run_with(Start::new().file("g.wasm", guest));
    let mut slowest = Duration::ZERO;
    for n in 0..12 {
        let asked = Instant::now();
        assert_eq!(rig.get("/").status, 500);
        slowest = slowest.max(asked.elapsed());
        assert!(
            rig.proxy.metric("sluicegate_config_generation") == 1.0,
            "{n}"
        );
    }
    let faults = |kind: &str| {
        let metrics = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
        let end = format!("kind=\"{kind}\"}} ");
        let line = metrics
            .lines()
            .find_map(|l| l.split_once(&end).map(|(_, n)| n.to_owned()));
        line.and_then(|n| n.parse::<u64>().ok()).unwrap_or_default()
    };
    // Those that the stock had, those that came into it meanwhile; the others found none.
    let (traps, none) = (faults("trap"), faults("instance"));
    assert_eq!(traps + none, 12);
    assert!(traps >= 3, "{traps} traps");
    eprintln!("{traps} traps, {none} without an instance, slowest {slowest:?}");
    // Once there is one again, the exchanges that it does not spoil are well.
    assert!(eventually(DEADLINE, || rig.get("/good").status == 200));
    assert!(eventually(DEADLINE, || rig.get("/").status == 500
        && rig.get("/good").status == 200));
}
