//! Every reason there is, reached from outside: what the client is told, and the one record that says why.

use std::net::Shutdown;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sluicegate::error::Reason;
use sluicegate_tests::backend::{Backend, refused};
use sluicegate_tests::client::{Raw, Response, curl};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::reasons::{Case, Client, Does, ELSEWHERE, cases};
use super::structured::{Bare, Item, list};
use super::{counted, each};
use crate::guest::{Guest, Phase};
use crate::rig::{Plan, Rig, record, records, with_certificate};
use crate::statuses::full_backlog;

#[test]
fn every_reason_is_reached_told_as_proxy_status_and_recorded_once() {
    let cases = cases();
    let covered: Vec<_> = cases
        .iter()
        .map(|case| case.reason)
        .chain(ELSEWHERE.iter().copied())
        .collect();
    for reason in Reason::ALL {
        assert!(covered.contains(reason), "no case for {reason}");
    }
    for some in cases.chunks(7) {
        each(some, |case| case.reason.to_string(), reached);
    }
}

fn reached(case: &Case) {
    let backend = match case.backend {
        Does::Serve => Some(Backend::http("web1")),
        Does::Silence => Some(says("", true)),
        Does::Say(text) => Some(says(text, false)),
        Does::Stall(text) => Some(says(text, true)),
        Does::Refuse | Does::Full | Does::Nothing => None,
    };
    let full = (case.backend == Does::Full).then(full_backlog);
    let endpoint = match (&backend, &full, case.backend) {
        (Some(backend), ..) => Some(backend.address()),
        (_, Some((address, _)), _) => Some(*address),
        (.., Does::Refuse) => Some(refused()),
        _ => None,
    };
    let idle = Guest::default().answers(Phase::Request, &[]).build();
    let trap = Guest::default().runs(Phase::Request, "unreachable").build();
    let start = with_certificate(Start::new())
        .file("idle.wasm", idle)
        .file("trap.wasm", trap);
    let endpoints: Vec<_> = endpoint.into_iter().collect();
    let mut rig = Plan::new(&endpoints)
        .listener(case.listener)
        .pool(case.pool)
        .run_with(start);
    let answer = ask(case, &mut rig);
    let reason = case.reason.as_str();
    let found = record(&rig.proxy, |r| r["reason"] == reason);
    let status = found["status"].as_u64().filter(|&status| status != 0);
    assert_eq!(
        status,
        case.status.map(u64::from).filter(|&s| s != 0),
        "{found}"
    );
    if case.answered {
        told(case, &answer.expect("an answer"));
    }
    if case.client != Client::Drains {
        rig.settles();
        let series = format!("sluicegate_endings_total{{listener=\"web\",reason=\"{reason}\"}}");
        counted(&rig.proxy, &series, 1.0);
    }
    let same: Vec<Value> = records(&rig.proxy);
    let same = same.iter().filter(|r| r["reason"] == reason).count();
    assert_eq!(same, 1, "records of {reason}");
}

/// Does what the client of the case does; gives the answer if there is one.
fn ask(case: &Case, rig: &mut Rig) -> Option<Response> {
    let active = |rig: &Rig, count| {
        let series = "sluicegate_exchanges_active{listener=\"web\"}";
        assert!(eventually(DEADLINE, || rig.proxy.metric(series) == count));
    };
    let mut raw = rig.raw();
    let get = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
    match case.client {
        Client::Sends(bytes) => raw.send(bytes).expect("send"),
        Client::Leaves => {
            raw.send(get).expect("send");
            active(rig, 1.0);
            return None;
        }
        Client::Second => {
            raw.send(get).expect("send");
            active(rig, 1.0);
            let answer = rig.ask(get);
            return Some(answer);
        }
        Client::Drains => {
            raw.send(get).expect("send");
            active(rig, 1.0);
            rig.proxy.signal(Signal::TERM);
            rig.proxy.wait_for_log("draining");
            rig.proxy.signal(Signal::TERM);
            rig.proxy.wait();
            assert!(raw.response().is_err());
            return None;
        }
    }
    raw.response().ok()
}

/// What an answer of the proxy itself says.
fn told(case: &Case, answer: &Response) {
    let (reason, head) = (case.reason, &answer.head);
    assert_eq!(Some(answer.status), case.status, "{head}");
    assert!(answer.text().contains(&format!("({reason})")), "{head}");
    assert_eq!(
        proxy_status(answer, "sluicegate"),
        reason
            .proxy_status()
            .map(|e| (e.into(), reason.to_string()))
    );
    assert_eq!(
        answer.field("retry-after").is_some(),
        answer.status == 503,
        "{head}"
    );
    let seconds = answer.field("retry-after").unwrap_or("1");
    assert!(seconds.parse::<u32>().is_ok(), "{head}");
    assert_eq!(
        answer.field("allow").is_some(),
        answer.status == 405,
        "{head}"
    );
    assert!(answer.field("date").is_some(), "{head}");
    assert_eq!(answer.field("via"), None, "an answer of its own");
}

/// Error and details of the one member of `Proxy-Status`, which is `name`'s.
fn proxy_status(answer: &Response, name: &str) -> Option<(String, String)> {
    let text = answer.field("proxy-status")?;
    let items = list(text).unwrap_or_else(|why| panic!("{text:?} is no list: {why}"));
    let [item]: &[Item; 1] = items.as_slice().try_into().expect("one member");
    let (Bare::Token(who) | Bare::Text(who)) = &item.value else {
        panic!("{text:?} names no proxy");
    };
    assert_eq!(who, name);
    let Some(Bare::Token(error)) = item.parameter("error") else {
        panic!("{text:?} has no error");
    };
    let Some(Bare::Text(details)) = item.parameter("details") else {
        panic!("{text:?} has no details");
    };
    Some((error.clone(), details.clone()))
}

#[test]
fn a_name_that_is_no_token_of_structured_fields_is_a_string() {
    for via in ["edge", "1st", "*x", "!odd"] {
        let rig = Plan::new(&[refused()])
            .listener(&format!("via: \"{via}\""))
            .run();
        let answer = rig.get("/");
        let (error, details) = proxy_status(&answer, via).expect("a status");
        assert_eq!(
            (error.as_str(), details.as_str()),
            ("connection_refused", "connect-refused")
        );
    }
}

#[test]
fn http2_clients_are_told_the_same() {
    let rig = Plan::new(&[refused()]).run();
    let done = curl(&["-i", "--http2-prior-knowledge", &rig.url("/")]);
    let head = done.body.replace("\r\n", "\n");
    assert!(head.starts_with("HTTP/2 502"), "{head}");
    assert!(
        head.contains(
            "proxy-status: sluicegate; error=connection_refused; details=\"connect-refused\"\n"
        ),
        "{head}"
    );
}

#[test]
fn a_request_that_waits_for_a_first_check_keeps_to_its_own_time() {
    // The check would take three seconds.
    let full = full_backlog();
    let rig = Plan::new(&[full.0])
        .pool("check: {tcp: {}, timeout: 3s}")
        .listener("timeouts: {total: 200ms}")
        .run();
    let started = std::time::Instant::now();
    let answer = rig.get("/x");
    assert_eq!(answer.status, 504);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(rig.record("/x")["reason"], "total-timeout");
}

#[test]
fn a_client_that_ends_its_side_before_it_is_answered_counts_as_gone() {
    let backend = says("", true);
    let rig = Plan::new(&[backend.address()]).run();
    let mut raw = rig.raw();
    raw.send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("send");
    raw.stream().shutdown(Shutdown::Write).expect("shutdown");
    let record = rig.record("/x");
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&499.into(), &"client-gone".into())
    );
    rig.settles();
}

/// Reads a head, says `text`, and then waits for the other side to end or closes.
fn says(text: &'static str, stays: bool) -> Backend {
    Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_ok() {
            let _ = raw.send(text);
            if stays {
                let _ = raw.to_end();
            }
        }
    })
}
