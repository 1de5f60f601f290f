//! The views read whatever they are given: arbitrary bytes, truncated blocks and lying offsets are absent, never a panic.

use proptest::prelude::*;
use sluicegate_sdk::{Glob, Head, Record, Request, Response, Stream, Text};

/// Reads everything there is to read.
fn read_all(block: &[u8]) {
    let head = Head::new(block);
    let fields: Vec<(Text<'_>, Text<'_>)> = head.fields().collect();
    assert!(fields.len() <= block.len() / 16);
    let _ = (head.method(), head.scheme(), head.authority(), head.host());
    let _ = (
        head.path(),
        head.query(),
        head.client_address(),
        head.client_port(),
    );
    let _ = (
        head.peer_address(),
        head.peer_port(),
        head.local_address(),
        head.local_port(),
    );
    let _ = (
        head.listener(),
        head.request_id(),
        head.protocol(),
        head.is_http2(),
    );
    let _ = (head.state(), head.field("x"), head.fields_named("").count());
    if let Some(tls) = head.tls() {
        let _ = (tls.sni(), tls.alpn(), tls.version(), tls.client_subject());
    }
    let _ = Request::new(block).has_body();
    let response = Response::new(block);
    let _ = (response.status(), response.endpoint(), response.pool());
    let record = Record::new(block);
    let _ = (
        record.status(),
        record.endpoint(),
        record.pool(),
        record.reason(),
    );
    let _ = (
        record.duration_us(),
        record.bytes_received(),
        record.bytes_sent(),
    );
    let stream = Stream::new(block);
    let _ = (
        stream.server_name(),
        stream.first_bytes(),
        stream.protocols_offered().count(),
    );
    let _ = format!("{head:?} {}", head.path());
}

/// A block that passes for one at the front and has random offsets behind.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    (
        0..40_u16,
        prop_oneof![0..8_u32, any::<u32>()],
        prop_oneof![Just(64_u32), 0..200_u32, any::<u32>()],
        prop::collection::vec(any::<u8>(), 52),
        prop::collection::vec(prop_oneof![0..400_u32, any::<u32>()], 0..120),
    )
        .prop_map(|(facts, fields, header, rest, offsets)| {
            let mut block = vec![1, 0];
            block.extend_from_slice(&facts.to_le_bytes());
            block.extend_from_slice(&fields.to_le_bytes());
            block.extend_from_slice(&header.to_le_bytes());
            block.extend_from_slice(&rest);
            for offset in offsets {
                block.extend_from_slice(&offset.to_le_bytes());
            }
            block
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(block in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all(&block);
    }

    #[test]
    fn lying_offsets_never_panic(block in plausible()) {
        read_all(&block);
    }

    #[test]
    fn globs_agree_with_a_plain_matcher(glob in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        fn plain(glob: &[u8], text: &[u8]) -> bool {
            match (glob.split_first(), text.split_first()) {
                (None, _) => text.is_empty(),
                (Some((b'*', tail)), _) => (0..=text.len()).any(|n| plain(tail, &text[n..])),
                (Some((b'?', tail)), Some((_, rest))) => plain(tail, rest),
                (Some((g, tail)), Some((t, rest))) => g == t && plain(tail, rest),
                (Some(_), None) => false,
            }
        }
        let expected = plain(glob.as_bytes(), text.as_bytes());
        prop_assert_eq!(Glob::new(&glob).matches(text.as_bytes()), expected);
    }
}

#[test]
fn the_host_is_the_authority_without_its_port() {
    use sluicegate_sdk::testing::TestRequest;

    for (authority, host) in [
        ("a.example", "a.example"),
        ("a.example:80", "a.example"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        (":80", ""),
        ("", ""),
    ] {
        let block = TestRequest::get("/").authority(authority).into_block();
        assert!(Request::new(&block).host() == host, "{authority}");
    }
}
