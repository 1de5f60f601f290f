//! Requests whose fields or lengths are wrong.
//!
//! A field that HTTP has no form for, the h2 crate takes for broken compression: the connection ends, not the stream alone.

use super::{Answer, Case, GET, POST, PROTOCOL_ERROR, run};
use crate::frames::{self, END_STREAM, block, data, data_end, headers, headers_open, integer};

const MALFORMED: Answer = Answer::Reset(PROTOCOL_ERROR);
const ENDS: Answer = Answer::GoAway(PROTOCOL_ERROR);

fn get_with(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, &[&GET[..], fields].concat())
}

fn post_with(fields: &[(&str, &str)]) -> Vec<u8> {
    headers_open(1, &[&POST[..], fields].concat())
}

/// GET without the pseudo-fields named.
fn get_without(names: &[&str]) -> Vec<u8> {
    let fields: Vec<_> = GET.into_iter().filter(|f| !names.contains(&f.0)).collect();
    headers(1, &fields)
}

#[test]
fn fields_that_are_not_allowed() {
    run(
        "",
        &[
            Case::new("an upper-case name", get_with(&[("X-Upper", "1")]), ENDS),
            Case::new("a space in a name", get_with(&[("x y", "1")]), ENDS),
            Case::new("an empty name", get_with(&[("", "1")]), ENDS),
            Case::new("CR LF in a name", get_with(&[("x\r\ny", "1")]), ENDS),
            Case::new("CR in a value", get_with(&[("x", "a\rb")]), ENDS),
            Case::new("LF in a value", get_with(&[("x", "a\nb")]), ENDS),
            Case::new("NUL in a value", get_with(&[("x", "a\0b")]), ENDS),
            Case::new(
                "a space before a value",
                get_with(&[("x", " a")]),
                Answer::Status(400),
            ),
            Case::new(
                "a tab after a value",
                get_with(&[("x", "a\t")]),
                Answer::Status(400),
            ),
            Case::new(
                "white space within a value",
                get_with(&[("x", "a \tb")]),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "a request in a value",
                get_with(&[("x", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")]),
                ENDS,
            ),
            Case::new(
                "connection",
                get_with(&[("connection", "close")]),
                MALFORMED,
            ),
            Case::new("keep-alive", get_with(&[("keep-alive", "1")]), MALFORMED),
            Case::new(
                "proxy-connection",
                get_with(&[("proxy-connection", "close")]),
                MALFORMED,
            ),
            Case::new(
                "transfer-encoding",
                post_with(&[("transfer-encoding", "chunked")]),
                MALFORMED,
            ),
            Case::new("upgrade", get_with(&[("upgrade", "websocket")]), MALFORMED),
            Case::new("te: gzip", get_with(&[("te", "gzip")]), MALFORMED),
            Case::new(
                "te: trailers",
                get_with(&[("te", "trailers")]),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "an expectation nobody knows",
                get_with(&[("expect", "cake")]),
                Answer::Status(417),
            ),
        ],
    );
}

#[test]
fn pseudo_fields_that_are_wrong() {
    let authority = |value| {
        let mut fields = GET;
        fields[3].1 = value;
        headers(1, &fields)
    };
    let path = |value| {
        let mut fields = GET;
        fields[2].1 = value;
        headers(1, &fields)
    };
    let method = |value| {
        let mut fields = GET;
        fields[0].1 = value;
        headers(1, &fields)
    };
    let trailers = |fields: &[(&str, &str)]| {
        let trailers = frames::frame(frames::HEADERS, 4 | END_STREAM, 1, &block(fields));
        [post_with(&[]), data(1, b"x"), trailers].concat()
    };
    run(
        "",
        &[
            Case::new(
                "after a regular field",
                {
                    let mut fields = vec![("x", "1")];
                    fields.extend(GET);
                    headers(1, &fields)
                },
                MALFORMED,
            ),
            Case::new(":path twice", get_with(&[(":path", "/other")]), MALFORMED),
            Case::new(":method twice", get_with(&[(":method", "GET")]), MALFORMED),
            Case::new(
                ":authority twice",
                get_with(&[(":authority", "site")]),
                MALFORMED,
            ),
            Case::new(
                ":status of a response",
                get_with(&[(":status", "200")]),
                MALFORMED,
            ),
            Case::new("one nobody knows", get_with(&[(":case", "1")]), ENDS),
            Case::new("no :method", get_without(&[":method"]), MALFORMED),
            Case::new("no :scheme", get_without(&[":scheme"]), MALFORMED),
            Case::new("no :path", get_without(&[":path"]), MALFORMED),
            Case::new("an empty :path", path(""), MALFORMED),
            Case::new("a :path without a slash", path("case"), MALFORMED),
            Case::new(
                "a :path in absolute form",
                path("http://site/case"),
                MALFORMED,
            ),
            Case::new("* for GET", path("*"), Answer::Status(400)),
            Case::new("a space in :path", path("/case x"), MALFORMED),
            Case::new("CR LF in :path", path("/case HTTP/1.1\r\nx: y"), MALFORMED),
            Case::new("a :method that is no token", method("GE T"), ENDS),
            Case::new("an empty :authority", authority(""), MALFORMED),
            Case::new(
                "user data in :authority",
                authority("user:secret@site"),
                Answer::Status(400),
            ),
            Case::new("a slash in :authority", authority("site/case"), MALFORMED),
            Case::new(
                "neither :authority nor Host",
                get_without(&[":authority"]),
                Answer::Status(400),
            ),
            Case::new(
                "Host that differs",
                get_with(&[("host", "other")]),
                Answer::Status(400),
            ),
            Case::new(
                "Host twice",
                get_with(&[("host", "site"), ("host", "site")]),
                Answer::Status(400),
            ),
            Case::new(
                "Host alone",
                headers(1, &[GET[0], GET[1], GET[2], ("host", "site")]),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "CONNECT",
                headers(1, &[(":method", "CONNECT"), (":authority", "site:443")]),
                Answer::Status(405),
            ),
            Case::new(
                "CONNECT with a length",
                headers_open(
                    1,
                    &[
                        (":method", "CONNECT"),
                        (":authority", "site:443"),
                        ("content-length", "5"),
                    ],
                ),
                Answer::Status(405),
            ),
            Case::new(
                "CONNECT for a protocol that nobody offered",
                {
                    headers_open(
                        1,
                        &[
                            (":method", "CONNECT"),
                            (":protocol", "connect-udp"),
                            GET[1],
                            GET[2],
                            GET[3],
                        ],
                    )
                },
                Answer::Status(405),
            ),
            // The crate forgets the first, and takes the second for `/`: neither can mean two things to us and a backend.
            Case::new(
                "in trailers",
                trailers(&[(":path", "/other")]),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "no :path, Host instead of :authority",
                headers(1, &[GET[0], GET[1], ("host", "site")]),
                Answer::Status(200),
            ),
        ],
    );
}

#[test]
fn bodies_of_another_length_than_announced() {
    let announced = |n| post_with(&[("content-length", n)]);
    run(
        "",
        &[
            Case::new(
                "longer",
                [announced("3"), data_end(1, b"1234")].concat(),
                MALFORMED,
            ),
            Case::new(
                "longer, in pieces",
                [announced("3"), data(1, b"12"), data(1, b"34")].concat(),
                MALFORMED,
            ),
            Case::new(
                "shorter",
                [announced("5"), data_end(1, b"1234")].concat(),
                MALFORMED,
            ),
            Case::new(
                "shorter, ended by trailers",
                {
                    let trailers =
                        frames::frame(frames::HEADERS, 4 | END_STREAM, 1, &block(&[("x", "1")]));
                    [announced("5"), data(1, b"1234"), trailers].concat()
                },
                MALFORMED,
            ),
            Case::new("none", get_with(&[("content-length", "5")]), MALFORMED),
            Case::new(
                "two lengths",
                [
                    post_with(&[("content-length", "4"), ("content-length", "5")]),
                    data_end(1, b"1234"),
                ]
                .concat(),
                MALFORMED,
            ),
            Case::new(
                "no number",
                [announced("four"), data_end(1, b"1234")].concat(),
                MALFORMED,
            ),
            Case::new(
                "a sign",
                [announced("+4"), data_end(1, b"1234")].concat(),
                MALFORMED,
            ),
            Case::new(
                "a length beyond counting",
                [announced("99999999999999999999"), data_end(1, b"1234")].concat(),
                MALFORMED,
            ),
            Case::new(
                "the same length twice",
                [
                    post_with(&[("content-length", "4"), ("content-length", "4")]),
                    data_end(1, b"1234"),
                ]
                .concat(),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "as announced",
                [announced("4"), data_end(1, b"1234")].concat(),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "trailers that do not end the stream",
                {
                    let trailers = frames::frame(frames::HEADERS, 4, 1, &block(&[("x", "1")]));
                    [post_with(&[]), data(1, b"1234"), trailers].concat()
                },
                MALFORMED,
            ),
        ],
    );
}

#[test]
fn heads_over_the_limits() {
    let value = "v".repeat(200);
    let many: Vec<(&str, &str)> = (0..11).map(|_| ("x", "y")).collect();
    let large: Vec<(&str, &str)> = (0..6).map(|_| ("x", value.as_str())).collect();
    let path = format!("/{}", "p".repeat(600));
    let huge = {
        // More than h2 keeps, below what it takes for an attack.
        let value = "v".repeat(4000);
        headers(1, &[&GET[..], &[("x", &value)]].concat())
    };
    run(
        "limits: {header-bytes: 1KiB, header-fields: 10, target-bytes: 512B}",
        &[
            Case::new("too many fields", get_with(&many), Answer::Status(431)),
            Case::new("fields too large", get_with(&large), Answer::Status(431)),
            Case::new("fields far too large", huge, Answer::Status(431)),
            Case::new(
                "a target too long",
                headers(1, &[GET[0], GET[1], (":path", &path), GET[3]]),
                Answer::Status(414),
            ),
            Case::new(
                "as many fields as allowed",
                get_with(&many[..10]),
                Answer::Status(200),
            )
            .reaching(1),
            Case::new(
                "trailers too many",
                {
                    let trailers = frames::frame(frames::HEADERS, 4 | END_STREAM, 1, &block(&many));
                    [post_with(&[]), data(1, b"x"), trailers].concat()
                },
                Answer::Status(400),
            ),
        ],
    );
}

#[test]
fn header_compression_that_is_broken() {
    let get = |bytes: &[u8]| frames::frame(frames::HEADERS, 5, 1, &[&block(&GET), bytes].concat());
    run(
        "",
        &[
            Case::new("index 0", get(&[0x80]), ENDS),
            Case::new("an index nobody made", get(&integer(0x80, 7, 62)), ENDS),
            Case::new(
                "an index beyond counting",
                get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
                ENDS,
            ),
            Case::new(
                "a name's index nobody made",
                get(&[&integer(0x40, 6, 70)[..], &[1, b'x']].concat()),
                ENDS,
            ),
            Case::new("half a field", get(&[0, 5, b'x']), ENDS),
            Case::new(
                "a Huffman code with EOS",
                get(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
                ENDS,
            ),
            Case::new(
                "a table larger than allowed",
                frames::frame(
                    frames::HEADERS,
                    5,
                    1,
                    &[&integer(0x20, 5, 1 << 20)[..], &block(&GET)].concat(),
                ),
                ENDS,
            ),
        ],
    );
}
