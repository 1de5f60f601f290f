//! Request lines and field lines: methods, versions, names and values, limits, and fields that mean something.

use std::time::Duration;

use sluicegate_tests::backend::Backend;

use super::{Case, End, hold, hold_with};
use crate::rig::Plan;

fn line(line: &str) -> String {
    format!("{line}\r\nHost: x\r\n\r\n")
}

fn field(field: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n")
}

#[test]
#[rustfmt::skip]
fn methods() {
    let r = |name, method: &str| Case::refused(name, line(&format!("{method} /x HTTP/1.1")), 400);
    let s = |name, method: &str| Case::served(name, line(&format!("{method} /x HTTP/1.1")), &[("/x", "")]);
    let (at_most, over) = ("M".repeat(64), "M".repeat(65));
    hold(&[
        s("unknown", "FROBNICATE"),
        s("lower case", "get"),
        s("every byte of a token", "!#$%&'*+-.^_`|~09aZ"),
        s("64 bytes", &at_most),
        r("65 bytes", &over),
        r("64 KiB", &"M".repeat(64 << 10)),
        r("empty", ""),
        r("a control byte", "GE\x01T"),
        r("a NUL", "GET\0"),
        r("a tab for the space", "GET\t/y"),
        r("an at sign", "G@T"),
        r("a colon", "GET:"),
        r("a quote", "\"GET\""),
        r("bytes over 0x80", "G\u{c9}T"),
        Case::refused("CONNECT", line("CONNECT x:443 HTTP/1.1"), 405),
        Case::refused("CONNECT of a path", line("CONNECT /x HTTP/1.1"), 405),
        Case::refused("CONNECT with a body", "CONNECT x:25 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nHELO x", 405),
    ]);
}

#[test]
#[rustfmt::skip]
fn versions() {
    let r = |name, version: &str, status| Case::refused(name, line(&format!("GET /x {version}")), status);
    hold(&[
        r("0.9", "HTTP/0.9", 505),
        r("1.2", "HTTP/1.2", 505),
        r("1.9", "HTTP/1.9", 505),
        r("2.0", "HTTP/2.0", 505),
        r("3.0", "HTTP/3.0", 505),
        r("9.9", "HTTP/9.9", 505),
        r("lower case", "http/1.1", 400),
        r("mixed case", "Http/1.1", 400),
        r("no minor", "HTTP/1", 400),
        r("no point", "HTTP/11", 400),
        r("two digits", "HTTP/1.10", 400),
        r("two digits before the point", "HTTP/01.1", 400),
        r("a comma", "HTTP/1,1", 400),
        r("a blank inside", "HTTP/ 1.1", 400),
        r("a blank behind", "HTTP/1.1 ", 400),
        r("a tab behind", "HTTP/1.1\t", 400),
        r("a NUL behind", "HTTP/1.1\0", 400),
        r("a bare CR behind", "HTTP/1.1\r", 400),
        r("other protocol", "HTCPCP/1.0", 400),
        r("a minus", "HTTP/-1.1", 400),
        Case::refused("none, as in 0.9", "GET /x\r\n\r\n", 400),
        Case::refused("none and a blank", "GET /x \r\n\r\n", 400),
        Case::refused("another protocol's greeting", "SSH-2.0-OpenSSH_9.2\r\n", 400),
        Case::refused("nothing that any protocol says", "\x01\x02\x03\x04", 400),
        Case::refused("a preface of HTTP/2 that goes on otherwise", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505),
        Case::served("1.0", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &[("/x", "")]),
        Case::served("1.0 that does not keep", "GET /x HTTP/1.0\r\n\r\n", &[("/x", "")]).then(End::Closed),
    ]);
}

#[test]
#[rustfmt::skip]
fn field_lines() {
    let r = |name, line: &str| Case::refused(name, field(line), 400);
    let s = |name, line: &str| Case::served(name, field(line), &[("/x", "")]);
    hold(&[
        r("space before the colon", "X-A : b"),
        r("tab before the colon", "X-A\t: b"),
        r("folded", "X-A: b\r\n folded"),
        r("folded with a tab", "X-A: b\r\n\tfolded"),
        r("a line of one blank", "X-A: b\r\n "),
        r("NUL", "X-A: b\0c"),
        r("NUL in the name", "X\0A: b"),
        r("bare CR", "X-A: b\rc"),
        r("bare CR and a field", "X-A: b\rX-B: c"),
        r("bare LF and no field", "X-A: b\nc"),
        r("a control byte", "X-A: b\x01c"),
        r("escape", "X-A: \x1b[31m"),
        r("DEL", "X-A: b\x7fc"),
        r("vertical tab", "X-A: b\x0bc"),
        r("no name", ": b"),
        r("no colon", "no colon"),
        r("only a name", "X-A"),
        r("parentheses in the name", "X(A): b"),
        r("blank in the name", "X A: b"),
        r("quote in the name", "X\"A: b"),
        r("slash in the name", "X/A: b"),
        r("bytes over 0x80 in the name", "X-\u{c4}: b"),
        Case::refused("a blank before the first name", "GET /x HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        s("bytes over 0x80", "X-A: \u{e4}\u{1f600}"),
        s("tab in the value", "X-A: b\tc"),
        s("no value", "X-A:"),
        s("every byte of a token", "!#$%&'*+-.^_`|~09aZ: b"),
        s("the same twice", "X-A: b\r\nX-A: b"),
        s("bare LF and a field", "X-A: b\nX-B: c"),
        Case::served("bare LF at every end", "GET /x HTTP/1.1\nHost: x\n\n", &[("/x", "")]),
        Case::served("empty lines before", "\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n", &[("/x", "")]),
        Case::served("empty lines of a bare LF before", "\n\r\n\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n", &[("/x", "")]),
        Case::served("ten thousand empty lines before", format!("{}GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n".repeat(10_000)), &[("/x", "")]),
        Case::refused("a bare CR before", "\rGET /x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        Case::refused("a blank before", " GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ]);
}

#[test]
#[rustfmt::skip]
fn heads_over_the_limits() {
    let r = Case::refused;
    let long = |n: usize| "a".repeat(n);
    hold(&[
        Case::served("127 fields beside Host", field(&["X: y"; 127].join("\r\n")), &[("/x", "")]),
        Case::served("60 KiB in one field", field(&format!("X: {}", long(60 << 10))), &[("/x", "")]),
        r("128 fields beside Host", field(&["X: y"; 128].join("\r\n")), 431),
        r("2,000 fields", field(&["X: y"; 2000].join("\r\n")), 431),
        r("200,000 fields", field(&["X: y"; 200_000].join("\r\n")), 431).then(End::Cut),
        r("1 MiB in one field", field(&format!("X: {}", long(1 << 20))), 431).then(End::Cut),
        r("1 MiB in one name", field(&format!("{}: y", long(1 << 20))), 431).then(End::Cut),
        r("100 KB in one name", field(&format!("{}: y", long(100_000))), 431),
        r("65 KiB in one field", field(&format!("X: {}", long(65 << 10))), 431),
        r("65 KiB in many fields", field(&vec![format!("X: {}", long(1024)); 65].join("\r\n")), 431),
        r("70 KiB in a name", field(&format!("{}: y", long(70 << 10))), 431),
        r("100 KB of a field that does not end", format!("GET /x HTTP/1.1\r\nHost: x\r\nX: {}", long(100_000)), 431),
        r("64 KiB of target", line(&format!("GET /{} HTTP/1.1", long(64 << 10))), 414),
        r("16 KiB and a byte of target", line(&format!("GET /{} HTTP/1.1", long(16 << 10))), 414),
        r("64 KiB of query", line(&format!("GET /?{} HTTP/1.1", long(64 << 10))), 414),
        r("100 KB of a target that does not end", format!("GET /{}", long(100_000)), 414),
        r("1 MiB of target", line(&format!("GET /{} HTTP/1.1", long(1 << 20))), 414).then(End::Cut),
        r("100 KB of an absolute form", line(&format!("GET http://{}/ HTTP/1.1", long(100_000))), 414),
    ]);
}

#[test]
#[rustfmt::skip]
fn heads_over_limits_that_a_listener_sets() {
    let r = Case::refused;
    let long = |n: usize| "a".repeat(n);
    let plan = Plan::new(&[]).listener("limits: {header-bytes: 4KiB, header-fields: 20, target-bytes: 1KiB}");
    hold_with(plan, &[
        r("target", line(&format!("GET /{} HTTP/1.1", long(1024))), 414),
        r("target that does not end", format!("GET /{}", long(100_000)), 414),
        r("one field", field(&format!("X: {}", long(4096))), 431),
        r("one field far over it", field(&format!("X: {}", long(8192))), 431),
        r("field that does not end", format!("GET /x HTTP/1.1\r\nHost: x\r\nX: {}", long(100_000)), 431),
        r("many fields", field(&["X: y"; 20].join("\r\n")), 431),
        Case::broken_off("trailers", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n", long(4096)), 400),
        Case::served("just below all of them", format!(
            "GET /x HTTP/1.1\r\nHost: x\r\n{}X: {}\r\n\r\n", "Y: z\r\n".repeat(18), long(3900)), &[("/x", "")]),
    ]);
}

/// Pieces end where a line end is cut in two, and where nothing but empty lines has come.
#[test]
fn heads_in_pieces() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for pieces in [
        &["\r", "\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n"][..],
        &[
            "\r\n",
            "\r",
            "\n\n",
            "GET /x HTTP/1.1\r",
            "\nHost: x\r\n\r",
            "\n",
        ],
        &["\n", "GET /x HTTP/1.1\n", "Host: x\n", "\n"],
        &["\r\nGET /x HTTP/1.1\r\n", "Host: x\r\n", "\r\n"],
    ] {
        let mut raw = rig.raw();
        for piece in pieces {
            raw.send(piece).expect("send");
            // Long enough for the piece to be read by itself nearly always; right either way.
            std::thread::sleep(Duration::from_millis(10));
        }
        let answer = raw
            .response()
            .unwrap_or_else(|why| panic!("{pieces:?}: {why}"));
        assert_eq!(answer.status, 200, "{pieces:?}");
    }
}

#[test]
#[rustfmt::skip]
fn expectations_upgrades_and_connection() {
    let r = |name, line: &str, status| Case::refused(name, field(line), status);
    let s = |name, line: &str| Case::served(name, field(line), &[("/x", "")]);
    let hello = |name, lines: &str| {
        let post = format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n{lines}\r\n\r\nhello");
        Case::served(name, post, &[("/x", "hello")])
    };
    hold(&[
        r("unknown expectation", "Expect: a-pony", 417),
        r("another number", "Expect: 200-ok", 417),
        r("empty expectation", "Expect:", 417),
        r("two expectations", "Expect: 100-continue, a-pony", 417),
        r("two lines of them", "Expect: 100-continue\r\nExpect: a-pony", 417),
        r("100-continue with a parameter", "Expect: 100-continue;q=1", 417),
        Case::refused("unknown expectation and a body", "POST /x HTTP/1.1\r\nHost: x\r\nExpect: a-pony\r\nContent-Length: 5\r\n\r\nhello", 417),
        hello("100-continue that does not wait", "Expect: 100-continue"),
        hello("100-continue in upper case", "Expect: 100-CONTINUE"),
        s("100-continue without a body", "Expect: 100-continue"),
        Case::served("100-continue in 1.0", "POST /x HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", &[("/x", "hello")]),
        s("upgrade to h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        s("upgrade to h2c without Connection", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        s("upgrade to TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2"),
        s("upgrade to two protocols", "Connection: Upgrade\r\nUpgrade: h2c, spdy/3.1"),
        s("an upgrade Connection does not name", "Upgrade: websocket"),
        hello("upgrade with a body", "Connection: Upgrade\r\nUpgrade: h2c"),
        hello("Connection names Content-Length", "Connection: Content-Length"),
        hello("Connection names Transfer-Encoding", "Connection: Transfer-Encoding, TE"),
        s("Connection names Host", "Connection: Host"),
        s("Connection names everything that is protected", "Connection: Host, Cookie, Authorization, X-Forwarded-For, Via, Forwarded, Cache-Control, Content-Type"),
        s("Connection of nothing", "Connection:"),
        s("Connection of what is no token", "Connection: (), \"close\", ,,;"),
        s("Connection of a thousand names", &format!("Connection: {}", ["x-a"; 1000].join(", "))),
        s("Keep-Alive and Proxy-Connection", "Keep-Alive: timeout=99999\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nTE: gzip"),
        Case::served("Connection: close in a list", field("Connection: foo, CLOSE"), &[("/x", "")]).then(End::Closed),
        Case::served("close and keep-alive", field("Connection: keep-alive\r\nConnection: close"), &[("/x", "")]).then(End::Closed),
    ]);
}
