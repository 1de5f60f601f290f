use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, TestStream, json};
use sluicegate_sdk::{Interest, Phase};

use super::Sticky;

#[track_caller]
fn sticky(by: serde_json::Value) -> Harness<Sticky> {
    Harness::new(json!({ "by": by })).expect("settings are fine")
}

fn cookie() -> Harness<Sticky> {
    sticky(json!({"cookie": {"name": "route", "secret": "0123456789abcdef"}}))
}

/// What a client would send back of a Set-Cookie line.
fn pair(set_cookie: &str) -> String {
    set_cookie.split(';').next().unwrap().to_owned()
}

#[test]
fn the_source_is_the_key_on_http_and_on_streams() {
    let mut harness = sticky(json!("source"));
    assert_eq!(harness.plan().request_fields, Interest::None);
    assert!(!harness.plan().phases.contains(Phase::Response));
    let answer = harness.request(TestRequest::get("/").client("203.0.113.9:1"));
    assert_eq!(answer.sticky_key(), Some(b"203.0.113.9".as_slice()));
    let stream = TestStream::new().client("[2001:db8::1]:1");
    let answer = harness.session(stream).connect();
    assert_eq!(answer.sticky_key(), Some(b"2001:db8::1".as_slice()));
}

#[test]
fn a_header_or_a_cookie_of_the_application_is_the_key() {
    let mut harness = sticky(json!({"header": "X-Tenant"}));
    let answer = harness.request(TestRequest::get("/").field("x-tenant", "a"));
    assert_eq!(answer.sticky_key(), Some(b"a".as_slice()));
    assert!(harness.request(TestRequest::get("/")).is_untouched());

    let mut harness = sticky(json!({"app-cookie": "JSESSIONID"}));
    for (line, key) in [
        ("JSESSIONID=x1", Some("x1")),
        ("a=b; JSESSIONID=\"x1\"; c=d", Some("x1")),
        ("XJSESSIONID=x1", None),
        ("JSESSIONID=", None),
        ("jsessionid=x1", None),
        (";;=;", None),
    ] {
        let answer = harness.request(TestRequest::get("/").field("cookie", line));
        assert_eq!(answer.sticky_key(), key.map(str::as_bytes), "{line}");
    }
    assert!(!harness.session(TestStream::new()).connect().was_called());
}

#[test]
fn the_cookie_brings_a_client_back_to_its_endpoint() {
    let mut harness = cookie();
    let response = TestResponse::new(200).from("10.0.0.1:80", "web");

    let mut first = harness.exchange(TestRequest::get("/"));
    assert!(first.request().is_untouched());
    let set = first
        .response(&response)
        .field("set-cookie")
        .unwrap()
        .to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("10.0.0.1"));

    let request = TestRequest::get("/").field("cookie", format!("a=b; {}", pair(&set)));
    let mut second = harness.exchange(request.clone());
    assert_eq!(second.request().endpoint(), Some("10.0.0.1:80"));
    assert!(second.response(&response).is_untouched());

    // The endpoint was gone, another one answered: the cookie follows.
    let mut third = harness.exchange(request);
    third.request();
    let other = TestResponse::new(200).from("10.0.0.2:80", "web");
    assert_ne!(third.response(&other).field("set-cookie").unwrap(), set);
}

#[test]
fn a_forged_cookie_counts_as_none() {
    let mut harness = cookie();
    let mut exchange = harness.exchange(TestRequest::get("/").field("cookie", "route=AAAA"));
    assert!(exchange.request().is_untouched());
    let response = TestResponse::new(200).from("10.0.0.1:80", "web");
    assert!(exchange.response(&response).field("set-cookie").is_some());
}

#[test]
fn a_valid_cookie_is_found_behind_a_forged_one() {
    let mut harness = cookie();
    let response = TestResponse::new(200).from("10.0.0.1:80", "web");
    let mut first = harness.exchange(TestRequest::get("/"));
    first.request();
    let set = first
        .response(&response)
        .field("set-cookie")
        .unwrap()
        .to_owned();
    let request = TestRequest::get("/")
        .field("cookie", "route=forged")
        .field("cookie", pair(&set));
    assert_eq!(harness.request(request).endpoint(), Some("10.0.0.1:80"));
}

#[test]
fn an_answer_of_the_proxy_itself_sets_no_cookie() {
    let mut harness = cookie();
    let mut exchange = harness.exchange(TestRequest::get("/"));
    exchange.request();
    assert!(exchange.response(&TestResponse::new(503)).is_untouched());
}

#[test]
fn the_attributes_are_as_set() {
    for (settings, attributes) in [
        (json!({}), "; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (
            json!({"path": "/app", "domain": "example.org", "max-age": 60, "http-only": false,
                   "same-site": "strict", "secure": false}),
            "; Path=/app; Domain=example.org; Max-Age=60; SameSite=Strict",
        ),
        (
            json!({"same-site": "none"}),
            "; Path=/; HttpOnly; SameSite=None; Secure",
        ),
    ] {
        let mut settings = settings;
        settings["name"] = json!("route");
        settings["secret"] = json!("0123456789abcdef");
        let mut harness = sticky(json!({ "cookie": settings }));
        let mut exchange = harness.exchange(TestRequest::get("/").tls("a.example"));
        exchange.request();
        let answer = exchange.response(&TestResponse::new(200).from("10.0.0.1:80", "web"));
        let set = answer.field("set-cookie").unwrap();
        assert_eq!(&set[set.find(';').unwrap()..], attributes);
    }
}

#[test]
fn mistakes_are_reported_where_they_are() {
    for (by, path, message) in [
        (json!("sauce"), "/by", "\"sauce\" is not one of"),
        (json!("cookie"), "/by", "needs settings of its own"),
        (json!({"header": "a b"}), "/by/header", "not a header name"),
        (
            json!({"app-cookie": ""}),
            "/by/app-cookie",
            "not a cookie name",
        ),
        (
            json!({"cookie": {"name": "a", "secret": "short"}}),
            "/by/cookie/secret",
            "fewer than 16 bytes",
        ),
        (
            json!({"cookie": {"name": "a", "secret": "0123456789abcdef", "path": "/;"}}),
            "/by/cookie/path",
            "printable ASCII",
        ),
        (
            json!({"cookie": {"name": "a", "secret": "0123456789abcdef", "pth": "/"}}),
            "/by/cookie/pth",
            "unknown key `pth`",
        ),
        (
            json!({"cookie": {"name": "a", "secret": "0123456789abcdef", "max-age": "x"}}),
            "/by/cookie/max-age",
            "expected",
        ),
    ] {
        let problems = Harness::<Sticky>::new(json!({ "by": by })).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, path, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
}
