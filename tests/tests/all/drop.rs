//! `drop` and `reset`: connections that end without an answer.

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::curl;
use sluicegate_tests::proxy::Start;

use super::frames;
use super::guest::{DROP, Guest, Phase, RESET, verdict};
use super::rig::{Plan, Rig};

fn rig(backend: &Backend, phase: Phase, kind: u8) -> Rig {
    let guest = Guest::default().answers(phase, &verdict(kind, &[])).build();
    Plan::new(&[backend.address()])
        .listener("filters: [{module: guest.wasm}]")
        .run_with(Start::new().file("guest.wasm", guest))
}

#[test]
fn drop_is_an_empty_reply_and_is_logged() {
    let backend = Backend::http("web1");
    for phase in [Phase::Request, Phase::Response] {
        let rig = rig(&backend, phase, DROP);
        for method in ["GET", "POST"] {
            let done = curl(&["-X", method, "-d", "body", &rig.url("/x")]);
            assert_eq!(done.code, 52, "{phase:?} {method}: {}", done.stderr);
        }
        let mut raw = rig.raw();
        raw.send("GET /raw HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert_eq!(raw.to_end().expect("a FIN, not a reset"), b"", "{phase:?}");
        let record = rig.record("/raw");
        assert_eq!(record["reason"], "filter-drop");
        assert!(record["status"].is_null());
        rig.settles();
    }
}

#[test]
fn reset_is_a_reset_and_is_logged() {
    let backend = Backend::http("web1");
    for phase in [Phase::Request, Phase::Response] {
        let rig = rig(&backend, phase, RESET);
        assert_eq!(curl(&[&rig.url("/x")]).code, 56, "{phase:?}");
        let mut raw = rig.raw();
        raw.send("GET /raw HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert!(raw.to_end().is_err(), "{phase:?}: no reset");
        assert_eq!(rig.record("/raw")["reason"], "filter-reset");
        rig.settles();
    }
}

#[test]
fn over_http2_both_touch_the_stream_alone() {
    let backend = Backend::http("web1");
    for (kind, reason) in [(DROP, "filter-drop"), (RESET, "filter-reset")] {
        let rig = rig(&backend, Phase::Request, kind);
        let mut client = frames::Client::connect(rig.bind);
        for (stream, path) in [(1, "/a"), (3, "/b")] {
            client.request(stream, path);
            let ended = client.next_of(&[frames::HEADERS, frames::RST_STREAM, frames::GOAWAY]);
            assert_eq!(
                (ended.kind, ended.stream),
                (frames::RST_STREAM, stream),
                "{reason}"
            );
            assert_eq!(ended.payload, [0, 0, 0, 8], "CANCEL");
            assert_eq!(rig.record(path)["reason"], reason);
        }
        drop(client);
        rig.settles();
    }
    assert!(backend.received().is_empty());
}

#[test]
fn a_block_by_user_agent_leaves_others_alone() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener(
            "filters: [{module: \"builtin:ua-block\", settings: {deny: [badcurl], action: drop}}]",
        )
        .run();
    assert_eq!(curl(&["-A", "badcurl", &rig.url("/")]).code, 52);
    assert_eq!(curl(&["-A", "goodcurl", &rig.url("/")]).body, "web1");
}
