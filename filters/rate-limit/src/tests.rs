use std::time::Duration;

use sluicegate_sdk::testing::{Answer, Harness, TestRequest, TestResponse, json, set_clock};

use super::RateLimit;

fn harness(settings: serde_json::Value) -> Harness<RateLimit> {
    set_clock(Duration::from_secs(1_000_000));
    Harness::new(settings).expect("settings are fine")
}

fn from(address: &str) -> TestRequest {
    TestRequest::get("/").client(address)
}

fn passes(answer: &Answer) -> bool {
    match answer.status() {
        None => answer.is_next(),
        Some(status) => {
            assert_eq!(status, 429);
            false
        }
    }
}

#[test]
fn a_burst_passes_then_the_rate_in_both_scopes() {
    for scope in ["worker", "shared"] {
        let mut limit = harness(json!({"rate": "2/s", "burst": 3, "scope": scope}));
        let mut ask = |address: &str| passes(&limit.request(from(address)));
        let first: Vec<bool> = (0..5).map(|_| ask("192.0.2.1:1000")).collect();
        assert_eq!(first, [true, true, true, false, false], "{scope}");
        assert!(ask("192.0.2.2:1000"), "another client has another bucket");
        set_clock(Duration::from_millis(1_000_000_499));
        assert!(!ask("192.0.2.1:1001"));
        set_clock(Duration::from_millis(1_000_000_500));
        assert!(ask("192.0.2.1:1001"));
        assert!(!ask("192.0.2.1:1001"));
    }
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let mut limit = harness(json!({"rate": "30/m", "burst": 1}));
    assert!(passes(&limit.request(from("192.0.2.1:1"))));
    let refused = limit.request(from("192.0.2.1:1"));
    assert_eq!(refused.status(), Some(429));
    assert_eq!(refused.field("retry-after"), Some("2"));
    assert_eq!(
        refused.field("ratelimit-policy"),
        Some("\"default\";q=1;w=2")
    );
    assert_eq!(refused.field("ratelimit"), Some("\"default\";r=0;t=2"));
    assert_eq!(refused.body(), b"too many requests\n");
}

#[test]
fn responses_tell_what_is_left_when_asked_to() {
    let mut limit = harness(json!({"rate": "10/s", "burst": 4, "headers": true}));
    let mut exchange = limit.exchange(from("192.0.2.1:1"));
    assert!(exchange.request().is_next());
    let response = exchange.response(&TestResponse::new(200));
    assert_eq!(response.field("ratelimit"), Some("\"default\";r=3;t=1"));
    let mut silent = harness(json!({"rate": "10/s"}));
    let mut exchange = silent.exchange(from("192.0.2.1:1"));
    assert!(exchange.request().is_untouched());
    assert!(!exchange.response(&TestResponse::new(200)).was_called());
}

#[test]
fn keys_are_what_is_asked_for() {
    let one = |settings: serde_json::Value, requests: &[TestRequest]| -> Vec<bool> {
        let mut limit = harness(settings);
        let all = requests.iter().cloned();
        all.map(|request| passes(&limit.request(request))).collect()
    };
    let with = |name: &str, value: &str| from("192.0.2.1:1").field(name, value);
    let settings = |by: serde_json::Value| json!({"rate": "1/h", "by": by});
    assert_eq!(
        one(
            settings(json!("client")),
            &[
                from("[2001:db8:1:2::1]:1"),
                from("[2001:db8:1:2:ffff::9]:1"),
                from("[2001:db8:1:3::1]:1"),
            ]
        ),
        [true, false, true]
    );
    assert_eq!(
        one(
            settings(json!("all")),
            &[from("192.0.2.1:1"), from("192.0.2.2:1")]
        ),
        [true, false]
    );
    assert_eq!(
        one(
            settings(json!({"header": "X-Api-Key"})),
            &[
                with("x-api-key", "a"),
                with("x-api-key", "b"),
                with("x-api-key", "a"),
                with("x-api-key", &"a".repeat(5000)),
                with("x-api-key", &"a".repeat(5001)),
                with("x-api-key", &"a".repeat(5000)),
            ]
        ),
        [true, true, false, true, true, false]
    );
    assert_eq!(
        one(
            settings(json!({"cookie": "id"})),
            &[
                with("cookie", "x=1; id=7"),
                with("cookie", "id=7; idle=2"),
                with("cookie", "idle=7"),
                with("cookie", "idle=7"),
            ]
        ),
        [true, false, true, true]
    );
}

#[test]
fn requests_without_the_key_are_let_pass_or_not() {
    let by = json!({"header": "x-api-key"});
    let mut limit = harness(json!({"rate": "1/h", "by": by.clone()}));
    assert!((0..3).all(|_| passes(&limit.request(from("192.0.2.1:1")))));
    let mut limit = harness(json!({"rate": "1/h", "by": by, "missing": "deny"}));
    let refused = limit.request(from("192.0.2.1:1"));
    assert_eq!(
        (refused.status(), refused.field("retry-after")),
        (Some(429), None)
    );
}

#[test]
fn the_action_is_as_set() {
    for (action, dropped, reset) in [("drop", true, false), ("reset", false, true)] {
        let mut limit = harness(json!({"rate": "1/h", "action": action, "scope": "worker"}));
        assert!(limit.request(from("192.0.2.1:1")).is_next());
        let answer = limit.request(from("192.0.2.1:1"));
        assert_eq!((answer.is_drop(), answer.is_reset()), (dropped, reset));
    }
}

#[test]
fn mistakes_are_reported_where_they_are() {
    for (settings, path, message) in [
        (json!({}), "", "rate"),
        (json!({"rate": "10"}), "/rate", "is no rate"),
        (json!({"rate": "0/s"}), "/rate", "is no rate"),
        (json!({"rate": "10/day"}), "/rate", "is no rate"),
        (json!({"rate": "1/s", "burst": 0}), "/burst", "ever pass"),
        (
            json!({"rate": "1/s", "by": {"header": "a b"}}),
            "/by/header",
            "header",
        ),
        (
            json!({"rate": "1/s", "scope": "all"}),
            "/scope",
            "not one of",
        ),
    ] {
        let problems = Harness::<RateLimit>::new(settings.clone()).unwrap_err();
        assert_eq!(problems.len(), 1, "{settings}: {problems:?}");
        assert_eq!(problems[0].path, path, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
}
