use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, json};
use sluicegate_sdk::{Interest, Phase};

use super::Headers;

#[track_caller]
fn headers(settings: serde_json::Value) -> Harness<Headers> {
    Harness::new(settings).expect("settings are fine")
}

#[test]
fn append_adds_a_line_and_set_replaces_all() {
    let mut harness = headers(json!({"request": [
        {"append": "X-Forwarded-By", "value": "${server.address}:${server.port}"},
        {"set": "x-team", "value": "blue"},
        {"add": "x-a", "value": "new"},
        {"add": "x-b", "value": "new"},
        {"remove": "x-debug"},
    ]}));
    let request = TestRequest::get("/")
        .local("192.0.2.7:443")
        .field("x-forwarded-by", "10.0.0.1:80")
        .field("x-team", "red")
        .field("x-team", "green")
        .field("x-a", "old")
        .field("x-debug", "1");
    let answer = harness.request(request);
    assert_eq!(
        answer.fields("x-forwarded-by"),
        ["10.0.0.1:80", "192.0.2.7:443"]
    );
    assert_eq!(answer.fields("x-team"), ["blue"]);
    assert_eq!(answer.fields("x-a"), ["old"]);
    assert_eq!(answer.fields("x-b"), ["new"]);
    assert_eq!(answer.field("x-debug"), None);
}

#[test]
fn variables_name_facts_of_the_exchange() {
    for (value, expected) in [
        ("${client.address} ${client.port}", "203.0.113.9 1234"),
        ("${peer.address}/${peer.port}", "10.0.0.9/99"),
        ("${server.address}:${server.port}", "198.51.100.1:80"),
        (
            "${method} ${path}?${query} ${protocol}",
            "GET /a?b=c HTTP/1.1",
        ),
        (
            "${scheme}://${host} ${authority}",
            "https://www.example www.example:8443",
        ),
        ("${request.id} ${listener}", "id-7 edge"),
        ("${tls.sni} ${tls.version}", "www.example 1.3"),
        ("<${tls.client-subject}>", "<>"),
        ("${header:Accept}", "a, b"),
        ("${header:missing}", ""),
        ("$${host} $", "${host} $"),
    ] {
        let mut harness = headers(json!({"request": [{"set": "x", "value": value}]}));
        let request = TestRequest::get("/a?b=c")
            .client("203.0.113.9:1234")
            .peer("10.0.0.9:99")
            .authority("www.example:8443")
            .listener("edge")
            .id("id-7")
            .tls("www.example")
            .field("accept", "a")
            .field("accept", "b");
        assert_eq!(
            harness.request(request).field("x"),
            Some(expected),
            "{value}"
        );
    }
}

#[test]
fn responses_know_endpoint_and_pool() {
    let mut harness = headers(json!({"response": [
        {"set": "x-served-by", "value": "${pool} ${endpoint}"},
        {"remove": "x-internal-*"},
        {"remove": "server"},
    ]}));
    let mut exchange = harness.exchange(TestRequest::get("/"));
    assert!(!exchange.request().was_called());
    let response = TestResponse::new(200)
        .from("10.0.0.1:80", "web")
        .field("server", "thing/1")
        .field("x-internal-a", "1")
        .field("x-internal-b", "2")
        .field("x-inter", "3");
    let answer = exchange.response(&response);
    assert_eq!(answer.field("x-served-by"), Some("web 10.0.0.1:80"));
    assert_eq!(answer.field("x-internal-a"), None);
    assert_eq!(answer.field("x-internal-b"), None);
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.field("x-inter"), Some("3"));
}

#[test]
fn a_prefix_leaves_the_hosts_fields_alone() {
    let mut harness = headers(json!({"request": [{"remove": "*"}]}));
    let answer = harness.request(TestRequest::get("/").field("host", "a").field("x-a", "b"));
    assert_eq!(answer.field("host"), Some("a"));
    assert_eq!(answer.field("x-a"), None);
}

#[test]
fn only_what_is_needed_is_asked_for() {
    let harness = headers(json!({"request": [{"set": "a", "value": "${host}"}]}));
    assert!(harness.plan().phases.contains(Phase::Request));
    assert!(!harness.plan().phases.contains(Phase::Response));
    assert_eq!(harness.plan().request_fields, Interest::None);

    let harness = headers(json!({"response": [{"set": "a", "value": "${header:Via}"}]}));
    assert!(!harness.plan().phases.contains(Phase::Request));
    assert_eq!(harness.plan().response_fields, Interest::some(["via"]));
}

#[test]
fn every_mistake_is_reported_where_it_is() {
    let problems = Harness::<Headers>::new(json!({
        "request": [
            {"set": "x", "value": "${clent.address}"},
            {"set": "Host", "value": "a"},
            {"set": "a b", "value": "a"},
            {"set": "a"},
            {"set": "a", "append": "b", "value": "c"},
            {},
            {"remove": "a", "value": "c"},
            {"set": "a", "value": "b\r\nc: d"},
            {"set": "a", "value": "${endpoint}"},
        ],
        "response": [{"remove": "content-length"}],
    }))
    .unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/request/0/value",
            "/request/1/set",
            "/request/2/set",
            "/request/3",
            "/request/4",
            "/request/5",
            "/request/6/value",
            "/request/7/value",
            "/request/8/value",
            "/response/0/remove",
        ]
    );
    assert_eq!(
        problems[0].help.as_deref(),
        Some("did you mean \"${client.address}\"?")
    );
}

#[test]
fn unknown_keys_are_all_reported() {
    let problems = Harness::<Headers>::new(json!({"requests": [], "responce": []})).unwrap_err();
    let helps: Vec<_> = problems
        .iter()
        .map(|p| p.help.as_deref().unwrap())
        .collect();
    assert_eq!(
        helps,
        ["did you mean `request`?", "did you mean `response`?"]
    );
    assert_eq!(problems[0].path, "/requests");
}

#[test]
fn more_edits_than_the_proxy_takes_are_refused() {
    let edits = |count: usize| {
        let edit = json!({"append": "x", "value": "y"});
        Harness::<Headers>::new(json!({"request": vec![edit; count]}))
    };
    let mut filter = edits(512).expect("as many as may be");
    let answer = filter.request(TestRequest::get("/"));
    assert_eq!(answer.fields("x").len(), 512);
    let problems = edits(513).expect_err("one too many");
    assert_eq!(problems[0].path.as_str(), "/request");
}
