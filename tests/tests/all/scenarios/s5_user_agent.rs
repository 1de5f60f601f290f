//! An HTTP listener that refuses a User-Agent and keeps everyone else with one backend.

use std::net::SocketAddr;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl, get, get_from};
use sluicegate_tests::proxy::Proxy;

use super::{clients, expected, shares};

#[test]
fn one_client_stays_and_others_spread() {
    let (web1, web2) = (Backend::http("web1"), Backend::http("web2"));
    let bind = Addresses::new().free();
    let _proxy = Proxy::start(&blocking("badcurl", bind, &[&web1, &web2]));

    let first = get(bind, "/").expect("an answer").text();
    let asked = shares((0..1000).map(|_| get(bind, "/").expect("an answer").text()));
    assert_eq!(asked, expected(&[(&first, 1000)]));

    let others = shares(clients(60).map(|c| get_from(c, bind, "/").expect("an answer").text()));
    assert!(
        others.len() == 2 && others.values().all(|&n| n > 10),
        "{others:?}"
    );
}

#[test]
fn the_client_named_gets_an_empty_reply_and_no_other() {
    let web1 =
        Backend::http_with(|request| response(200, request.field("user-agent").unwrap_or("none")));
    let bind = Addresses::new().free();
    let proxy = Proxy::start(&blocking("badcurl", bind, &[&web1]));
    let url = format!("http://{bind}/");
    let refused = |agent: &str| {
        let got = curl(&["-A", agent, &url]);
        assert_eq!(
            (got.code, got.body.as_str()),
            (52, ""),
            "{agent}: {}",
            got.stderr
        );
        assert_eq!(got.stderr, "curl: (52) Empty reply from server\n");
    };
    let served = |agent: &str| {
        let got = curl(&["-A", agent, &url]);
        assert_eq!((got.code, got.body.as_str()), (0, agent), "{}", got.stderr);
    };
    refused("badcurl");
    served("badcurl/1.0");
    served("Badcurl");
    served("goodcurl");
    assert_eq!(curl(&["-H", "User-Agent:", &url]).body, "none");
    // Not one byte, and a clean end.
    let mut raw = Raw::connect(bind);
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: badcurl\r\n\r\n")
        .expect("sent");
    assert_eq!(raw.to_end().expect("a clean end"), b"");

    let answer = proxy.reload(&blocking("badcurl*", bind, &[&web1]));
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    refused("badcurl");
    refused("badcurl/1.0");
    served("goodcurl");
    served("not-badcurl/1.0");
    let seen = web1.received();
    assert!(
        seen.iter()
            .all(|r| r.field("user-agent") != Some("badcurl")),
        "the backend was spared"
    );
}

#[test]
fn an_endpoint_that_does_not_answer_200_is_left_out() {
    let (web1, sick) = (
        Backend::http("web1"),
        Backend::http_with(|_| response(500, "sick")),
    );
    let bind = Addresses::new().free();
    let _proxy = Proxy::start(&blocking("badcurl", bind, &[&sick, &web1]));
    let answers = clients(60).map(|c| get_from(c, bind, "/").expect("an answer").text());
    assert_eq!(shares(answers), expected(&[("web1", 60)]));
    assert!(
        sick.received().iter().all(|r| r.target() == "/"),
        "it was checked"
    );
    assert!(!sick.received().is_empty());
}

fn blocking(glob: &str, bind: SocketAddr, endpoints: &[&Backend]) -> String {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|e| format!("\"{}\"", e.address()))
        .collect();
    format!(
        "\
pools:
  web:
    endpoints: [{}]
    check: {{http: {{path: /, status: 200}}, interval: 10s}}
filters:
  no-badcurl:
    module: builtin:ua-block
    settings: {{deny: [\"{glob}\"], action: drop}}
listeners:
  - name: front
    bind: {bind}
    protocol: http
    filters: [no-badcurl, {{module: builtin:sticky, settings: {{by: source}}}}]
    pool: web
",
        endpoints.join(", ")
    )
}
