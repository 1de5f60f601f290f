use std::cell::RefCell;
use std::rc::Rc;

use sluicegate_sdk::effect::Error;
use sluicegate_sdk::testing::{Answer, Harness, TestCall, TestRequest, TestResponse, json};

use super::AuthRequest;

fn settings() -> serde_json::Value {
    json!({"pool": "auth", "path": "/verify", "copy": ["X-User", "x-groups"]})
}

fn ask(
    settings: serde_json::Value,
    request: TestRequest,
    answer: Result<TestResponse, Error>,
) -> (Answer, TestCall) {
    let seen = Rc::new(RefCell::new(None));
    let mut harness = Harness::<AuthRequest>::new(settings).expect("settings are fine");
    let noted = seen.clone();
    harness.on_call(move |call| {
        noted.borrow_mut().replace(call.clone());
        answer.clone()
    });
    let answer = harness.request(request);
    let call = seen.borrow_mut().take().expect("the service is asked");
    (answer, call)
}

fn request() -> TestRequest {
    TestRequest::get("/admin?a=b")
        .client("192.0.2.7:1000")
        .field("Authorization", "Bearer t")
        .field("Cookie", "s=1")
        .field("X-User", "root")
        .field("X-Other", "1")
}

#[test]
fn the_service_is_told_what_it_needs() {
    let (_, call) = ask(settings(), request(), Ok(TestResponse::new(204)));
    assert_eq!(
        (&*call.pool, &*call.method, &*call.path),
        ("auth", "GET", "/verify")
    );
    assert_eq!(call.timeout_ms, 1000);
    assert_eq!(call.field("authorization"), Some("Bearer t"));
    assert_eq!(call.field("cookie"), Some("s=1"));
    assert_eq!(call.field("x-other"), None);
    assert_eq!(call.field("x-original-method"), Some("GET"));
    let url = call.field("x-original-url").unwrap();
    assert!(
        url.starts_with("http://") && url.ends_with("/admin?a=b"),
        "{url}"
    );
    assert_eq!(call.field("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(call.field("x-forwarded-proto"), Some("http"));
    let host = call.field("x-forwarded-host").unwrap();
    assert_eq!(url, format!("http://{host}/admin?a=b"));
    let behind_tls = request().tls("a.example").authority("shop.test:8443");
    let (_, call) = ask(settings(), behind_tls, Ok(TestResponse::new(204)));
    assert_eq!(call.field("x-forwarded-proto"), Some("https"));
    assert_eq!(call.field("x-forwarded-host"), Some("shop.test:8443"));
    assert_eq!(
        call.field("x-original-url"),
        Some("https://shop.test:8443/admin?a=b")
    );
}

#[test]
fn what_it_says_is_copied_and_cannot_be_forged() {
    let answer = TestResponse::new(200)
        .field("X-User", "ann")
        .field("X-Groups", "a")
        .field("X-Groups", "b")
        .field("X-Secret", "s");
    let (passed, _) = ask(settings(), request(), Ok(answer));
    assert!(passed.is_next());
    assert_eq!(passed.fields("x-user"), ["ann"]);
    assert_eq!(passed.fields("x-groups"), ["a", "b"]);
    assert_eq!(passed.field("x-secret"), None);
    let (passed, _) = ask(settings(), request(), Ok(TestResponse::new(204)));
    assert_eq!(passed.field("x-user"), None);
}

#[test]
fn refusals_are_relayed() {
    let answer = TestResponse::new(401)
        .field("WWW-Authenticate", "Basic realm=\"x\"")
        .field("X-Secret", "s");
    let (refused, _) = ask(settings(), request(), Ok(answer));
    assert_eq!(refused.status(), Some(401));
    assert_eq!(refused.field("www-authenticate"), Some("Basic realm=\"x\""));
    assert_eq!(refused.field("x-secret"), None);
    let answer = TestResponse::new(302).field("Location", "/login");
    let (refused, _) = ask(settings(), request(), Ok(answer));
    assert_eq!(
        (refused.status(), refused.field("location")),
        (Some(302), Some("/login"))
    );
}

#[test]
fn a_service_that_fails_denies_unless_told_otherwise() {
    for answer in [
        Err(Error::Timeout),
        Err(Error::Refused),
        Ok(TestResponse::new(500)),
    ] {
        let (denied, _) = ask(settings(), request(), answer.clone());
        assert_eq!(denied.status(), Some(503));
        let mut lenient = settings();
        lenient["on-failure"] = json!("allow");
        let (passed, _) = ask(lenient, request(), answer);
        assert!(passed.is_next());
        assert_eq!(passed.field("x-user"), None);
    }
}

#[test]
fn mistakes_are_reported_where_they_are() {
    for (key, value, path, message) in [
        ("path", json!("verify"), "/path", "is no path"),
        ("method", json!("G T"), "/method", "is no method"),
        ("copy", json!(["a b"]), "/copy/0", "header"),
        ("copy", json!(["Host"]), "/copy/0", "belongs to the proxy"),
        ("timeout", json!("2m"), "/timeout", "1ms to 60s"),
        ("on-failure", json!("maybe"), "/on-failure", "not one of"),
    ] {
        let mut settings = settings();
        settings[key] = value;
        let problems = Harness::<AuthRequest>::new(settings).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, path, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
}
