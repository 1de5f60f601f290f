//! Reload: a good configuration serves from the next request on, a bad one changes nothing.

use std::time::Duration;

use rustix::process::Signal;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, get};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::guest::{BODY, Guest, Phase, REPLY, op, verdict};
use super::rig::{Plan, records};
use crate::frames::{self, Client};

/// A guest that answers every request with `text`.
fn saying(text: &str) -> Vec<u8> {
    let reply = verdict(REPLY, &[op(BODY, "", text.as_bytes())]);
    Guest::default().answers(Phase::Request, &reply).build()
}

fn sends(raw: &mut Raw) -> String {
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    raw.response().expect("response").text()
}

#[test]
fn reload_swaps_the_pool_under_a_kept_connection_and_says_what_changed() {
    let (one, two) = (Backend::http("one"), Backend::http("two"));
    let rig = Plan::new(&[one.address()]).run();
    let mut kept = rig.raw();
    assert_eq!(sends(&mut kept), "one");
    let output = rig
        .proxy
        .reload(&Plan::new(&[two.address()]).yaml(rig.bind));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(
        output
            .stdout
            .starts_with("generation 1 \u{2192} 2 (1 pool changed) in "),
        "{}",
        output.stdout
    );
    // The very next request of a connection that was open before.
    assert_eq!(sends(&mut kept), "two");
    assert_eq!(rig.proxy.metric("sluicegate_config_generation"), 2.0);
    assert_eq!(
        rig.proxy.metric("sluicegate_config_last_reload_successful"),
        1.0
    );
    let output = rig
        .proxy
        .reload(&Plan::new(&[two.address()]).yaml(rig.bind));
    assert!(
        output.stdout.contains("(nothing changed)"),
        "{}",
        output.stdout
    );
}

#[test]
fn sighup_reloads() {
    let (one, two) = (Backend::http("one"), Backend::http("two"));
    let rig = Plan::new(&[one.address()]).run();
    rig.proxy
        .configure(&Plan::new(&[two.address()]).yaml(rig.bind));
    assert_eq!(rig.get("/").text(), "one");
    rig.proxy.signal(Signal::HUP);
    assert!(eventually(DEADLINE, || rig.get("/").text() == "two"));
}

#[test]
fn a_bad_configuration_leaves_the_old_one_and_says_why() {
    let one = Backend::http("one");
    let mut rig = Plan::new(&[one.address()]).run();
    let good = Plan::new(&[one.address()]).yaml(rig.bind);
    let mut kept = rig.raw();
    assert_eq!(sends(&mut kept), "one");
    for (bad, says) in [
        (good.replace("pool: web", "pool: wbe"), "unknown-pool"),
        (good.replace("protocol: http", "protocl: http"), "protocl"),
        ("listeners: [".to_owned(), "error"),
        (
            format!("{good}filters: {{f: {{module: ./gone.wasm}}}}\n"),
            "gone.wasm",
        ),
    ] {
        let output = rig.proxy.reload(&bad);
        assert_eq!(output.code, 78, "{bad}\n{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains(says), "{says}: {}", output.stderr);
        assert!(
            output.stderr.contains("generation 1 goes on"),
            "{}",
            output.stderr
        );
        assert_eq!(sends(&mut kept), "one");
    }
    // The same by signal.
    rig.proxy.configure("nonsense: [");
    rig.proxy.signal(Signal::HUP);
    rig.proxy.wait_for_log("SIGHUP");
    assert!(rig.proxy.is_running());
    assert_eq!(sends(&mut kept), "one");
    assert_eq!(
        rig.proxy.metric("sluicegate_config_last_reload_successful"),
        0.0
    );
    assert_eq!(rig.proxy.metric("sluicegate_config_generation"), 1.0);
    let output = rig.proxy.reload(&good);
    assert_eq!(output.code, 0, "{}", output.stderr);
}

#[test]
fn a_bad_module_leaves_the_old_one() {
    let plan = Plan::new(&[]).listener("filters: [{module: f.wasm}]");
    let rig = plan
        .clone()
        .run_with(Start::new().file("f.wasm", saying("old")));
    let yaml = plan.yaml(rig.bind);
    let trapping = Guest::default()
        .item("(func $s unreachable) (start $s)")
        .answers(Phase::Request, &[])
        .build();
    for bad in [&b"not wasm"[..], b"\0asm\x01\0\0\0", &trapping] {
        std::fs::write(rig.proxy.directory().join("f.wasm"), bad).expect("module");
        let output = rig.proxy.reload(&yaml);
        assert_eq!(output.code, 78, "{output:?}");
        assert!(output.stderr.contains("f.wasm"), "{}", output.stderr);
        assert_eq!(rig.get("/").text(), "old");
    }
    std::fs::write(rig.proxy.directory().join("f.wasm"), saying("new")).expect("module");
    let output = rig.proxy.reload(&yaml);
    assert!(output.stdout.contains("1 filter changed"), "{output:?}");
    assert_eq!(rig.get("/").text(), "new");
}

#[test]
fn listeners_come_and_go_and_unchanged_ones_keep_their_connections() {
    let backend = Backend::http("web1");
    let mut addresses = Addresses::new();
    let [a, b, c] = [addresses.free(), addresses.free(), addresses.free()];
    let yaml = |listeners: &[(&str, std::net::SocketAddr)]| {
        let listeners: Vec<String> = listeners
            .iter()
            .map(|(name, bind)| {
                format!("{{name: {name}, bind: \"{bind}\", protocol: http, pool: web}}")
            })
            .collect();
        format!(
            "pools: {{web: {{endpoints: [\"{}\"]}}}}\nlisteners: [{}]\n",
            backend.address(),
            listeners.join(", ")
        )
    };
    let proxy = Start::new().run(&yaml(&[("a", a), ("b", b)]));
    let (mut on_a, mut on_b) = (Raw::connect(a), Raw::connect(b));
    assert_eq!(
        (sends(&mut on_a), sends(&mut on_b)),
        ("web1".into(), "web1".into())
    );
    let output = proxy.reload(&yaml(&[("a", a), ("c", c)]));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(get(c, "/").expect("the new listener").text(), "web1");
    let gone = || std::net::TcpStream::connect(b).is_err();
    assert!(eventually(DEADLINE, gone), "b still accepts");
    // A live connection is not cut, not even that of a listener that is gone.
    assert_eq!(
        (sends(&mut on_a), sends(&mut on_b)),
        ("web1".into(), "web1".into())
    );
    // And back again.
    assert_eq!(proxy.reload(&yaml(&[("a", a), ("b", b)])).code, 0);
    assert_eq!(get(b, "/").expect("b again").text(), "web1");
    assert_eq!(sends(&mut on_a), "web1");
    assert_eq!(
        proxy.metric("sluicegate_connections_accepted_total{listener=\"a\"}"),
        1.0,
        "a kept its socket"
    );
}

#[test]
fn a_port_that_cannot_be_had_fails_the_reload_alone() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let taken = Backend::http("taken");
    let yaml = Plan::new(&[backend.address()]).yaml(rig.bind);
    let log = "telemetry: {access-log: {format: combined}}\n";
    let more = yaml.replace("telemetry: {access-log: {format: json}}\n", "")
        + &format!(
            "  - {{name: more, bind: \"{}\", protocol: http, pool: web}}\n{log}",
            taken.address()
        );
    let more = more.replace("telemetry: {access-log: {format: combined}}\n", "") + log;
    let output = rig.proxy.reload(&more);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(
        output.stderr.contains(&taken.address().to_string()),
        "{}",
        output.stderr
    );
    assert_eq!(rig.get("/x").text(), "web1");
    // The access log goes where it went.
    assert_eq!(rig.record("/x")["status"], 200);
}

#[test]
fn watch_notices_the_configuration_and_a_module() {
    let plan = Plan::new(&[]).listener("filters: [{module: f.wasm}]");
    let start = Start::new()
        .file("f.wasm", saying("one"))
        .argument("--watch");
    let rig = plan.clone().run_with(start);
    assert_eq!(rig.get("/").text(), "one");
    let module = rig.proxy.directory().join("f.wasm");
    std::fs::write(&module, saying("two")).expect("module");
    assert!(eventually(DEADLINE, || rig.get("/").text() == "two"));
    // Replaced by rename, as editors do.
    let beside = rig.proxy.directory().join("f.new");
    std::fs::write(&beside, saying("three")).expect("module");
    std::fs::rename(&beside, &module).expect("rename");
    assert!(eventually(DEADLINE, || rig.get("/").text() == "three"));
    // A broken file is refused, and the watch goes on.
    std::fs::write(&module, "broken").expect("module");
    rig.proxy.wait_for_log("reload refused");
    assert_eq!(rig.get("/").text(), "three");
    std::fs::write(&module, saying("four")).expect("module");
    assert!(eventually(DEADLINE, || rig.get("/").text() == "four"));
    let backend = Backend::http("backend");
    rig.proxy
        .configure(&Plan::new(&[backend.address()]).yaml(rig.bind));
    assert!(eventually(DEADLINE, || rig.get("/").text() == "backend"));
    // The log lies in the watched directory: writing it is no change.
    let generation = rig.proxy.metric("sluicegate_config_generation");
    for _ in 0..5 {
        rig.get("/");
        std::thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(rig.proxy.metric("sluicegate_config_generation"), generation);
}

#[test]
fn the_access_log_moves_where_it_is_told() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    rig.get("/first");
    rig.record("/first");
    let plan = Plan::new(&[backend.address()])
        .top("telemetry: {access-log: {to: access.log, format: json}}");
    let file = rig.proxy.directory().join("access.log");
    let yaml = plan
        .yaml(rig.bind)
        .replace("access.log", &file.display().to_string());
    let output = rig.proxy.reload(&yaml);
    assert_eq!(output.code, 0, "{}", output.stderr);
    rig.get("/second");
    let has = |text: &str| {
        std::fs::read_to_string(&file)
            .unwrap_or_default()
            .contains(text)
    };
    assert!(eventually(DEADLINE, || has("/second")));
    // Rotation: renamed away, reopened on USR1.
    let old = rig.proxy.directory().join("access.log.1");
    std::fs::rename(&file, &old).expect("rename");
    rig.proxy.signal(Signal::USR1);
    assert!(eventually(DEADLINE, || file.exists()));
    rig.get("/third");
    assert!(eventually(DEADLINE, || has("/third")));
    let off = Plan::new(&[backend.address()]).top("telemetry: {access-log: off}");
    assert_eq!(rig.proxy.reload(&off.yaml(rig.bind)).code, 0);
    rig.get("/fourth");
    assert_eq!(
        rig.proxy
            .reload(&Plan::new(&[backend.address()]).yaml(rig.bind))
            .code,
        0
    );
    rig.get("/fifth");
    rig.record("/fifth");
    let targets: Vec<_> = records(&rig.proxy)
        .iter()
        .map(|r| r["target"].clone())
        .collect();
    assert_eq!(targets, ["/first", "/fifth"]);
    assert!(!has("/fourth"));
}

#[test]
fn what_needs_a_restart_says_so() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).top("workers: 2").run();
    let output = rig.proxy.reload(
        &Plan::new(&[backend.address()])
            .top("workers: 3")
            .yaml(rig.bind),
    );
    assert_eq!(output.code, 78);
    assert!(
        output.stderr.contains("restart-needed"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("sluicegate.yaml:"),
        "{}",
        output.stderr
    );
    assert_eq!(rig.get("/").text(), "web1");
}

/// Connections live for days, and reloads come every minute.
#[test]
fn a_connection_that_waits_keeps_no_generation() {
    let backend = Backend::http("web1");
    let plan = |n: u32| {
        Plan::new(&[backend.address()])
            .top("workers: 1")
            .listener(&format!("limits: {{streams: {n}}}"))
    };
    let rig = plan(10).run();
    let mut http1 = rig.raw();
    let ask = |raw: &mut Raw| {
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        assert_eq!(raw.response().expect("an answer").text(), "web1");
    };
    ask(&mut http1);
    let mut http2 = Client::connect(rig.bind);
    let mut fetch = |stream| {
        http2.request(stream, "/");
        assert_eq!(http2.next_of(&[frames::HEADERS]).stream, stream);
    };
    fetch(1);
    for n in 2..5 {
        let output = rig.proxy.reload(&plan(n * 10).yaml(rig.bind));
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    let one = || rig.proxy.metric("sluicegate_config_generations") == 1.0;
    assert!(eventually(DEADLINE, one));
    assert_eq!(rig.proxy.metric("sluicegate_config_generation"), 4.0);
    ask(&mut http1);
    fetch(3);
}

#[test]
fn an_exchange_in_flight_ends_in_the_generation_it_began_with() {
    let gate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let open = gate.clone();
    let slow = Backend::http_with(move |_| {
        let _ = eventually(DEADLINE, || open.load(std::sync::atomic::Ordering::SeqCst));
        response(200, "slow")
    });
    let quick = Backend::http("quick");
    let filter = |value: &str| {
        format!(
            "filters: [{{module: \"builtin:headers\", settings: {{response: [{{set: x-gen, value: \"{value}\"}}]}}}}]"
        )
    };
    let rig = Plan::new(&[slow.address()]).listener(&filter("one")).run();
    let mut raw = rig.raw();
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    assert!(eventually(DEADLINE, || slow.connections() == 1));
    let output = rig.proxy.reload(
        &Plan::new(&[quick.address()])
            .listener(&filter("two"))
            .yaml(rig.bind),
    );
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(rig.proxy.metric("sluicegate_config_generations"), 2.0);
    gate.store(true, std::sync::atomic::Ordering::SeqCst);
    let first = raw.response().expect("response");
    assert_eq!(
        (first.text().as_str(), first.field("x-gen")),
        ("slow", Some("one"))
    );
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    let second = raw.response().expect("response");
    assert_eq!(
        (second.text().as_str(), second.field("x-gen")),
        ("quick", Some("two"))
    );
}
