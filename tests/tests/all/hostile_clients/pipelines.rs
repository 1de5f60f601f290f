//! Requests behind requests: an error ends the connection and nothing behind it is read as a request, and no byte of a
//! body becomes one.

use super::{Case, End, hold};

const GET_A: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const GET_B: &str = "GET /b HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
#[rustfmt::skip]
fn an_error_ends_the_connection_after_what_came_before_it() {
    let second = |name, second: &str, status| {
        Case::served(name, format!("{GET_A}{second}{GET_B}"), &[("/a", "")]).then_refused(status)
    };
    hold(&[
        second("both framings", "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        second("lengths differ", "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        second("no Host", "GET /x HTTP/1.1\r\n\r\n", 400),
        second("folded", "GET /x HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n", 400),
        second("no request at all", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", 400),
        second("an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
        second("HTTP/0.9", "GET /x\r\n\r\n", 400),
        second("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        second("unknown coding", "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        second("CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        second("expectation", "GET /x HTTP/1.1\r\nHost: x\r\nExpect: a-pony\r\n\r\n", 417),
        second("many fields", &format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
        second("long target", &format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000)), 414),
        second("broken chunk", "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400).with_a_beginning(),
        Case::served("more behind a body than it says", format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\x01{GET_B}"), &[("/a", "hello")])
            .then_refused(400),
        Case::served("less in a body than it says", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: x\r\n\r\n", &[("/a", "helloGET ")])
            .then_refused(400),
        Case::served("in the twenty-first", format!("{}GET /x\r\n\r\n", GET_A.repeat(20)), &[("/a", ""); 20]).then_refused(400),
    ]);
}

#[test]
#[rustfmt::skip]
fn nothing_is_read_behind_the_last_request() {
    let s = Case::served;
    hold(&[
        s("Connection: close", format!("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{GET_B}"), &[("/a", "")]).then(End::Closed),
        s("close behind a body", format!("POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello{GET_B}"), &[("/a", "hello")]).then(End::Closed),
        s("close behind chunks", format!("POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{GET_B}"), &[("/a", "hello")]).then(End::Closed),
        s("HTTP/1.0", format!("GET /a HTTP/1.0\r\n\r\n{GET_B}"), &[("/a", "")]).then(End::Closed),
        s("HTTP/1.0 with a body", format!("POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello{GET_B}"), &[("/a", "hello")]).then(End::Closed),
        s("the second closes", format!("{GET_A}GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{GET_A}"), &[("/a", ""), ("/b", "")]).then(End::Closed),
    ]);
}

/// What makes two servers in a row read different requests, each with what it would smuggle.
#[test]
#[rustfmt::skip]
fn no_request_is_smuggled_in_another() {
    let r = Case::refused;
    let s = Case::served;
    let evil = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n";
    let len = evil.len();
    hold(&[
        r("length at the front, coding behind", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}"), 400),
        r("coding at the front, length behind", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), 400),
        r("coding hidden by a blank", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), 400),
        r("coding hidden by a fold", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), 400),
        r("coding hidden by a bare CR", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), 400),
        r("coding shown by a bare LF", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), 400),
        r("coding that only one side knows", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{evil}"), 400),
        r("length that only one side reads", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: {len}\r\n\r\n{evil}"), 400),
        r("length with a sign", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: +{len}\r\n\r\n{evil}"), 400),
        r("length past 2^64", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n{evil}"), 400),
        r("coding in 1.0", format!("POST /x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}"), 400),
        Case::broken_off("bare LF in a chunk extension", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n{len:x}\r\n0\r\n\r\n{evil}"), 400),
        Case::broken_off("a chunk that ends in two other bytes", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxxyy0\r\n\r\n{evil}"), 400),
        Case::broken_off("a size that wraps", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{evil}"), 400),
        s("in the body of a POST", format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{evil}"), &[("/x", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        s("in the body of a GET", format!("GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{evil}"), &[("/x", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        s("in the body of an OPTIONS", format!("OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{evil}"), &[("*", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        s("in a chunk", format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), &[("/x", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        s("behind a length that Connection names", format!("POST /x HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: {len}\r\n\r\n{evil}"), &[("/x", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        s("behind a coding that Connection names", format!("POST /x HTTP/1.1\r\nHost: x\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{evil}\r\n0\r\n\r\n"), &[("/x", "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")]),
        Case::served("in a trailer", "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: GET /evil HTTP/1.1\r\n\r\n", &[("/x", "")]),
        s("in the open", format!("{GET_A}{GET_B}"), &[("/a", ""), ("/b", "")]),
    ]);
}
