//! `builtin:auth-request` with a real service.

use std::net::SocketAddr;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, refused, response};
use sluicegate_tests::client::{Raw, Response};
use sluicegate_tests::proxy::{Proxy, Start};

/// Lets `Bearer ann` pass, sends `Bearer away` elsewhere, breaks at `Bearer break` and refuses everybody else.
fn service() -> Backend {
    Backend::http_with(|question| {
        let head = question.head.to_ascii_lowercase();
        if !head.contains("x-original-url: http://x/secret?x=1")
            || !head.starts_with("get /verify ")
        {
            return response(500, "a bad question");
        }
        let answer: &[u8] = if head.contains("authorization: bearer ann") {
            b"HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Groups: a\r\nX-Groups: b\r\n\r\n"
        } else if head.contains("authorization: bearer away") {
            b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
        } else if head.contains("authorization: bearer break") {
            b"garbage\r\n\r\n"
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 7\r\n\r\nwho are"
        };
        answer.to_vec()
    })
}

fn guarded(web: &Backend, auth: SocketAddr, settings: &str) -> (Proxy, SocketAddr) {
    let bind = Addresses::new().free();
    let proxy = Start::new().run(&format!(
        "pools:\n  web: {{endpoints: [\"{}\"]}}\n  auth: {{endpoints: [\"{auth}\"]}}\n\
         filters:\n  login: {{module: \"builtin:auth-request\", capabilities: [{{http-call: [auth]}}], settings: {{pool: auth, path: /verify, copy: [x-user, x-groups]{settings}}}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, filters: [login]}}\n",
        web.address()
    ));
    (proxy, bind)
}

fn ask(bind: SocketAddr, authorization: &str) -> Response {
    let mut raw = Raw::connect(bind);
    raw.send(format!(
        "GET /secret?x=1 HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nX-User: root\r\nConnection: close\r\n\r\n"
    ))
    .expect("send");
    raw.response().expect("a response")
}

#[test]
fn the_service_decides_and_says_who_it_is() {
    let (web, auth) = (Backend::http("web"), service());
    let (_proxy, bind) = guarded(&web, auth.address(), "");
    for _ in 0..3 {
        let passed = ask(bind, "Bearer ann");
        assert_eq!((passed.status, passed.text()), (200, "web".to_owned()));
    }
    for got in web.take_received() {
        let head = got.head.to_ascii_lowercase();
        assert!(head.contains("\nx-user: ann"), "{head}");
        assert!(
            head.contains("\nx-groups: a") && head.contains("\nx-groups: b"),
            "{head}"
        );
        assert!(!head.contains("root"), "{head}");
    }
    let refused = ask(bind, "Bearer eve");
    assert_eq!(
        (refused.status, refused.text()),
        (401, "who are".to_owned())
    );
    assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
    let away = ask(bind, "Bearer away");
    assert_eq!((away.status, away.field("location")), (302, Some("/login")));
    assert!(web.received().is_empty());
}

#[test]
fn a_service_that_fails_means_what_is_configured() {
    let (web, auth) = (Backend::http("web"), service());
    let cases = [(auth.address(), "Bearer break"), (refused(), "Bearer ann")];
    for (address, authorization) in cases {
        let (_proxy, bind) = guarded(&web, address, "");
        assert_eq!(ask(bind, authorization).status, 503);
        assert!(web.take_received().is_empty());
        let (_proxy, bind) = guarded(&web, address, ", on-failure: allow");
        assert_eq!(ask(bind, authorization).status, 200);
        let received = web.take_received();
        assert!(!received[0].head.contains("root"), "{}", received[0].head);
    }
}
