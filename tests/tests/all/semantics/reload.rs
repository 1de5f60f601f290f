//! Reload: what it refuses, and who never notices it.

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Proxy, Start, sluicegate};

use super::counted;
use crate::rig::{Plan, record};

#[test]
fn a_configuration_without_listeners_is_refused_everywhere_with_its_place_and_its_mend() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let pools = format!(
        "pools: {{web: {{endpoints: [\"{}\"]}}}}\n",
        backend.address()
    );
    let mut kept = rig.raw();
    for (yaml, line) in [
        (pools.clone(), 1),
        (format!("{pools}listeners: []\n"), 2),
        (format!("{pools}listeners:\n"), 2),
    ] {
        let place = format!("sluicegate.yaml:{line}:1");
        let says = |text: &str| {
            for part in [
                "error[no-listeners]",
                &place,
                "help: add one under `listeners`",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        };
        let output = rig.proxy.reload(&yaml);
        assert_eq!(output.code, 78, "{output:?}");
        says(&output.stderr);
        assert!(output.stderr.contains("generation 1 goes on"), "{output:?}");
        kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert_eq!(kept.response().expect("response").text(), "web1");
        assert_eq!(rig.get("/").text(), "web1");
        // At the start, and to `check`.
        let mut started = Start::new().spawn(&yaml);
        assert_eq!(started.wait().code(), Some(78), "{}", started.stderr());
        says(&started.stderr());
        let file = started.directory().join("sluicegate.yaml");
        let checked = sluicegate(&["check", "-c", &file.to_string_lossy()]);
        assert_eq!(checked.code, 78, "{checked:?}");
        says(&checked.stderr);
    }
}

#[test]
fn nothing_that_lives_notices_a_reload() {
    let backend = Backend::raw(|stream, _| {
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
            let _ = match head.contains("/chunks") {
                true => raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                false => raw.send(response(200, "web1")),
            };
            // Each byte of the request's body comes back as a chunk.
            while head.contains("/chunks") {
                let Ok(size) = raw.line() else { return };
                if raw.exactly(3).is_err() || size != "1" {
                    return;
                }
                let _ = raw.send("1\r\nx\r\n");
            }
        }
    });
    let (echo, other) = (Backend::echo(), Backend::http("other"));
    let mut addresses = Addresses::new();
    let (bind, relay, more) = (addresses.free(), addresses.free(), addresses.free());
    let yaml = |n: usize| {
        let (backend, echo, other) = (backend.address(), echo.address(), other.address());
        let pool = ["web", "web", "new"][n % 3];
        let extra = match n % 2 {
            1 => format!("  - {{name: more, bind: \"{more}\", protocol: http, pool: web}}\n"),
            _ => String::new(),
        };
        format!(
            "pools:\n  web: {{endpoints: [\"{backend}\"], retries: {n}}}\n  new: {{endpoints: [\"{other}\"]}}\n  \
             echo: {{endpoints: [\"{echo}\"], retries: {n}}}\nlisteners:\n  \
             - {{name: web, bind: \"{bind}\", protocol: http, pool: {pool}, filters: [{{module: \"builtin:headers\", \
             settings: {{response: [{{set: x-n, value: \"{n}\"}}]}}}}]}}\n  \
             - {{name: relay, bind: \"{relay}\", protocol: tcp, pool: echo}}\n{extra}\
             telemetry: {{access-log: {{format: json}}}}\n"
        )
    };
    let proxy = Proxy::start(&yaml(0));
    let (mut socket, mut session) = (Raw::connect(bind), Raw::connect(relay));
    socket
        .send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("send");
    assert!(socket.head().expect("head").starts_with("HTTP/1.1 101"));
    let (mut stream, mut kept) = (Raw::connect(bind), Raw::connect(bind));
    stream
        .send("POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("send");
    let head = stream.head().expect("head");
    assert!(head.contains("x-n: 0"), "{head}");
    for n in 0..6 {
        if n > 0 {
            let output = proxy.reload(&yaml(n));
            assert_eq!(output.code, 0, "{output:?}");
        }
        for living in [&mut socket, &mut session] {
            living.send("ping").expect("send");
            assert_eq!(living.exactly(4).expect("echo"), b"ping", "reload {n}");
        }
        // A body that is on its way both ways.
        stream.send("1\r\nx\r\n").expect("send");
        assert_eq!(
            stream.exactly(6).expect("chunk"),
            b"1\r\nx\r\n",
            "reload {n}"
        );
        kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        let answer = kept.response().expect("response");
        let text = if n % 3 == 2 { "other" } else { "web1" };
        let mark = n.to_string();
        assert_eq!(
            (answer.text().as_str(), answer.field("x-n")),
            (text, Some(mark.as_str())),
            "reload {n}"
        );
    }
    // Each listener kept its socket and its counters through all of them.
    let accepted = |name: &str| {
        proxy.metric(&format!(
            "sluicegate_connections_accepted_total{{listener=\"{name}\"}}"
        ))
    };
    assert_eq!((accepted("web"), accepted("relay")), (3.0, 1.0));
    let answered = "sluicegate_requests_total{listener=\"web\",code=\"2xx\"}";
    counted(&proxy, answered, 6.0);
    drop((socket, session));
    let done = record(&proxy, |r| r["target"] == "/ws");
    assert_eq!(
        (&done["status"], &done["bytes_in"]),
        (&101.into(), &24.into())
    );
}

#[test]
fn counters_and_the_old_generation_survive_bad_input() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let series = "sluicegate_requests_total{listener=\"web\",code=\"2xx\"}";
    let good = Plan::new(&[backend.address()]).yaml(rig.bind);
    for n in 1..=4 {
        assert_eq!(rig.get("/").text(), "web1");
        let bad = [
            "listeners: [",
            "nonsense",
            "listeners: [{name: web}]",
            "pools: 7",
        ][n - 1];
        let output = rig.proxy.reload(bad);
        assert_eq!(output.code, 78, "{output:?}");
        assert!(output.stderr.contains("sluicegate.yaml:"), "{output:?}");
        assert_eq!(rig.proxy.metric("sluicegate_config_generation"), 1.0);
        counted(&rig.proxy, series, n as f64);
    }
    let failed = "sluicegate_config_reloads_total{result=\"failed\"}";
    counted(&rig.proxy, failed, 4.0);
    assert_eq!(rig.proxy.reload(&good).code, 0);
    assert_eq!(rig.get("/").text(), "web1");
    counted(&rig.proxy, series, 5.0);
}
