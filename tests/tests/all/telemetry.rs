//! One record for every exchange and session, however it ends, and metrics that add up.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::frames;
use super::rig::{Plan, records};

#[test]
fn every_ending_is_one_record() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let sent = match head.split(' ').nth(1).unwrap_or_default() {
                "/cut" => raw.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
                "/wait" => {
                    let _ = raw.to_end();
                    return;
                }
                "/none" => return,
                _ => raw.send(response(200, "ok")),
            };
            if sent.is_err() || head.contains("/cut") {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()]).pool("retries: 0").run();
    let mut expected: Vec<(String, u64, Option<&str>)> = Vec::new();
    let ask = |target: &str, bytes: &str| {
        let mut raw = rig.raw();
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{bytes}\r\n"))
            .expect("send");
        let _ = raw.response();
    };
    ask("/ok", "");
    expected.push(("/ok".into(), 200, None));
    ask("/cut", "");
    expected.push(("/cut".into(), 200, Some("upstream-truncated")));
    ask("/none", "");
    expected.push(("/none".into(), 502, Some("upstream-reset")));
    ask("", "");
    expected.push(("".into(), 400, Some("bad-request")));
    // The client leaves: while waiting, and within a head.
    let mut raw = rig.raw();
    raw.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    let running = || {
        rig.proxy
            .metric("sluicegate_exchanges_active{listener=\"web\"}")
            == 1.0
    };
    assert!(eventually(DEADLINE, running));
    drop(raw);
    expected.push(("/wait".into(), 499, Some("client-gone")));
    rig.record("/wait");
    // HTTP/2: an answer, and a cancelled stream.
    let mut client = frames::Client::connect(rig.bind);
    client.request(1, "/ok2");
    client.next_of(&[frames::HEADERS]);
    expected.push(("/ok2".into(), 200, None));
    client.request(3, "/wait");
    assert!(eventually(DEADLINE, running));
    client.cancel(3);
    expected.push(("/wait".into(), 499, Some("client-gone")));
    drop(client);
    rig.settles();
    // A connection without a request is no exchange.
    drop(rig.raw());
    rig.settles();
    let written = || records(&rig.proxy).len() >= expected.len();
    assert!(eventually(DEADLINE, written), "{}", rig.proxy.stdout());
    std::thread::sleep(Duration::from_millis(1500));
    let all: Vec<_> = records(&rig.proxy)
        .iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().map(str::to_owned);
            (
                text("target").unwrap_or_default(),
                r["status"].as_u64().unwrap_or(0),
                text("reason"),
            )
        })
        .collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(t, s, r)| (t, s, r.map(str::to_owned)))
        .collect();
    let sorted = |mut list: Vec<(String, u64, Option<String>)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(all), sorted(expected));
    let total: f64 = ["2xx", "4xx", "5xx"]
        .iter()
        .map(|code| {
            rig.proxy.metric(&format!(
                "sluicegate_requests_total{{listener=\"web\",code=\"{code}\"}}"
            ))
        })
        .sum();
    assert_eq!(total, 7.0);
}

#[test]
fn a_record_tells_what_happened() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[refused(), backend.address()]).run();
    for n in 0..2 {
        rig.ask(format!(
            "POST /t{n}?q=1 HTTP/1.1\r\nHost: site\r\nUser-Agent: \"agent\"\r\nReferer: r\r\nAuthorization: Basic secret\r\n\
             Cookie: secret=1\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nContent-Length: 5\r\n\r\nhello"
        ));
    }
    let both = [rig.record("/t0?q=1"), rig.record("/t1?q=1")];
    let retried = both
        .iter()
        .find(|r| r["tries"] == 2)
        .unwrap_or_else(|| panic!("{both:?}"));
    for (key, value) in [
        ("kind", "exchange"),
        ("listener", "web"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("authority", "site"),
        ("version", "HTTP/1.1"),
        ("user_agent", "\"agent\""),
        ("referer", "r"),
        ("pool", "web"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(retried[key], value, "{key} in {retried}");
    }
    assert_eq!(
        (
            &retried["bytes_in"],
            &retried["bytes_out"],
            &retried["status"]
        ),
        (&5.into(), &4.into(), &200.into())
    );
    assert_eq!(retried["endpoint"], backend.address().to_string());
    assert!(retried["duration_us"].as_u64() >= retried["upstream_us"].as_u64());
    assert!(!rig.proxy.stdout().contains("secret"));
}

#[test]
fn every_format_is_one_line_that_parses_whatever_the_client_sends() {
    let backend = Backend::http("web1");
    for format in ["text", "json", "combined"] {
        let rig = Plan::new(&[backend.address()])
            .top(&format!("telemetry: {{access-log: {{format: {format}}}}}"))
            .run();
        rig.ask("GET /a\"b\\c%0a HTTP/1.1\r\nHost: x\r\nUser-Agent: a\"b\\c\t\u{e9}\r\nReferer: -\r\n\r\n");
        let line = rig.proxy.stdout_line("/a");
        assert!(line.bytes().all(|b| b >= 0x20), "{line:?}");
        match format {
            "json" => {
                let record: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(record["target"], "/a\"b\\c%0a");
            }
            "combined" => {
                // client - - [time] "request" status bytes "referer" "agent"
                assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
                assert!(line.contains("HTTP/1.1\" 200 4 \"-\" \""), "{line}");
            }
            _ => assert!(line.contains(" web 127.0.0.1 GET "), "{line}"),
        }
        assert_eq!(rig.proxy.stdout().lines().count(), 1);
    }
}

#[test]
fn metrics_are_there_and_gauges_return_to_zero() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:ua-block\", settings: {deny: [badcurl], action: drop}}]",
        )
        .run();
    for n in 0..10 {
        rig.get(&format!("/{n}"));
    }
    let _ = curl(&["-A", "badcurl", &rig.url("/")]);
    rig.settles();
    let text = rig.proxy.admin("GET", "/metrics").expect("metrics").text();
    let endpoint = backend.address();
    for (series, value) in [
        (
            "sluicegate_connections_accepted_total{listener=\"web\"}".to_owned(),
            11.0,
        ),
        (
            "sluicegate_requests_total{listener=\"web\",code=\"2xx\"}".to_owned(),
            10.0,
        ),
        (
            "sluicegate_sent_bytes_total{listener=\"web\"}".to_owned(),
            40.0,
        ),
        (
            "sluicegate_request_duration_seconds_count{listener=\"web\"}".to_owned(),
            11.0,
        ),
        (
            "sluicegate_endings_total{listener=\"web\",reason=\"filter-drop\"}".to_owned(),
            1.0,
        ),
        (
            format!("sluicegate_endpoint_requests_total{{pool=\"web\",endpoint=\"{endpoint}\"}}"),
            10.0,
        ),
        (
            format!("sluicegate_endpoint_active{{pool=\"web\",endpoint=\"{endpoint}\"}}"),
            0.0,
        ),
        (
            format!("sluicegate_endpoint_up{{pool=\"web\",endpoint=\"{endpoint}\"}}"),
            1.0,
        ),
        ("sluicegate_config_generation".to_owned(), 1.0),
    ] {
        assert!(
            text.contains(&format!("{series} ")),
            "{series} is not in:\n{text}"
        );
        assert_eq!(rig.proxy.metric(&series), value, "{series}");
    }
    let calls: f64 = text
        .lines()
        .filter(|line| line.starts_with("sluicegate_filter_calls_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(calls >= 1.0, "filter calls are not counted in:\n{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
}

/// The metrics as a client with this Accept field gets them, and what they are said to be.
fn accepted(proxy: &Proxy, accept: &str) -> (String, String) {
    let socket = proxy.admin_socket();
    let accept = format!("Accept: {accept}");
    let url = "http://localhost/metrics";
    let got = curl(&[
        "-i",
        "-H",
        &accept,
        "--unix-socket",
        &socket.to_string_lossy(),
        url,
    ]);
    let (head, text) = got.body.split_once("\r\n\r\n").expect("a response");
    let field = sluicegate_tests::client::field(head, "content-type");
    (field.expect("a media type").to_owned(), text.to_owned())
}

#[test]
fn metrics_of_both_formats_are_what_prometheus_reads() {
    let backend = Backend::http("web");
    let rig = Plan::new(&[backend.address(), refused()])
        .pool("check: tcp")
        .listener("filters: [{module: \"builtin:ua-block\", settings: {deny: [badcurl]}}]")
        .run();
    for n in 0..5 {
        assert_eq!(rig.get(&format!("/{n}")).status, 200);
    }
    let (media_type, text) = accepted(&rig.proxy, "text/plain;version=0.0.4");
    assert_eq!(media_type, "text/plain; version=0.0.4; charset=utf-8");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs (is it installed?)");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("written");
    drop(stdin);
    let checked = promtool.wait_with_output().expect("promtool ends");
    assert!(checked.status.success(), "{checked:?}\n{text}");

    // Prometheus' own reader of OpenMetrics wants to know when.
    let (media_type, text) = accepted(
        &rig.proxy,
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
    );
    assert_eq!(
        media_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let timed: String = text
        .lines()
        .map(|line| match line.starts_with('#') {
            true => format!("{line}\n"),
            false => format!("{line} 1700000000\n"),
        })
        .collect();
    let directory = rig.proxy.directory();
    std::fs::write(directory.join("metrics"), timed).expect("a file");
    let read = Command::new("promtool")
        .args([
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "metrics",
            "blocks",
        ])
        .current_dir(directory)
        .output()
        .expect("promtool runs");
    assert!(read.status.success(), "{read:?}\n{text}");
    for series in [
        "sluicegate_pool_response_seconds_count{pool=\"web\"} 5",
        "sluicegate_pool_endpoints{pool=\"web\"} 2.0",
        "sluicegate_pool_healthy_endpoints{pool=\"web\"} 1.0",
        "sluicegate_pool_unresolved_names{pool=\"web\"} 0.0",
        "sluicegate_pool_names_gone_total{pool=\"web\"} 0",
    ] {
        assert!(
            text.lines().any(|line| line == series),
            "{series} in {text}"
        );
    }
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_may_be() {
    let backend = Backend::http("web");
    let rig = Plan::new(&[backend.address()]).run_with(Start::new().descriptors(256));
    let limits = format!("/proc/{}/limits", rig.proxy.pid());
    let limits = std::fs::read_to_string(limits).expect("the process is there");
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let words: Vec<_> = line
        .expect("a line")
        .split_ascii_whitespace()
        .skip(3)
        .collect();
    assert_eq!(words[0], words[1], "soft and hard limit: {limits}");
}
