//! What becomes of a stream when its exchange ends early, and that the other streams go on.

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::Start;

use crate::frames::{Client, Frame, HEADERS, RST_STREAM, STATUS_200};
use crate::guest::{DROP, Guest, Phase, RESET, verdict};
use crate::rig::Plan;

const DATA: u8 = 0;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[test]
fn drop_and_reset_of_a_response_touch_the_stream_alone() {
    for (kind, reason) in [(DROP, "filter-drop"), (RESET, "filter-reset")] {
        let backend = Backend::http("web1");
        let guest = Guest::default()
            .answers(Phase::Response, &verdict(kind, &[]))
            .build();
        let rig = Plan::new(&[backend.address()])
            .listener("filters: [{module: guest.wasm}]")
            .run_with(Start::new().file("guest.wasm", guest));
        let mut client = Client::connect(rig.bind);
        for (stream, path) in [(1, "/a"), (3, "/b")] {
            client.request(stream, path);
            let ended = client.next_of(&[HEADERS, RST_STREAM]);
            assert_eq!((ended.kind, ended.stream), (RST_STREAM, stream), "{reason}");
            assert_eq!(ended.payload, CANCEL);
            assert_eq!(rig.record(path)["reason"], reason);
        }
    }
}

#[test]
fn a_failure_after_the_head_resets_its_stream_and_leaves_the_others() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let broken = head.contains("/broken");
            let rest = if broken { "half" } else { "whole body" };
            let _ = raw.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{rest}"
            ));
            if broken {
                return;
            }
        }
    });
    let rig = Plan::new(&[backend.address()]).run();
    let mut client = Client::connect(rig.bind);
    for stream in [1, 5, 9] {
        client.request(stream, "/broken");
        let mut got = Vec::new();
        loop {
            let Frame { kind, payload, .. } = client.next_of(&[HEADERS, DATA, RST_STREAM]);
            match kind {
                HEADERS => assert_eq!(payload[0], STATUS_200),
                DATA => got.extend(payload),
                _ => {
                    assert_ne!(payload, [0, 0, 0, 0], "an error, not NO_ERROR");
                    break;
                }
            }
        }
        assert_eq!(got, b"half");
        client.request(stream + 2, "/fine");
        client.next_of(&[HEADERS]);
        let data = client.next_of(&[DATA, RST_STREAM]);
        assert_eq!((data.kind, data.payload), (DATA, b"whole body".to_vec()));
    }
    assert_eq!(rig.record("/broken")["reason"], "upstream-truncated");
}
