//! Who is asked for what: the Host field and the forms of a request target (RFC 9112 §3.2).

use super::recorder::Recorder;
use super::{Case, hold};
use crate::rig::Plan;

#[test]
#[rustfmt::skip]
fn hosts() {
    let request = |fields: &str| format!("GET /x HTTP/1.1\r\n{fields}\r\n");
    let r = |name, fields: &str| Case::refused(name, request(fields), 400);
    let s = |name, fields: &str| Case::served(name, request(fields), &[("/x", "")]);
    hold(&[
        r("missing", ""),
        r("missing, but X-Forwarded-Host", "X-Forwarded-Host: x\r\n"),
        r("twice", "Host: a\r\nHost: b\r\n"),
        r("twice the same", "Host: a\r\nHost: a\r\n"),
        r("twice by case of the name", "Host: a\r\nhOST: a\r\n"),
        r("empty", "Host:\r\n"),
        r("blank", "Host: \t \r\n"),
        r("a blank inside", "Host: a b\r\n"),
        r("a list", "Host: a, b\r\n"),
        r("a path", "Host: a/b\r\n"),
        r("a query", "Host: a?b\r\n"),
        r("a fragment", "Host: a#b\r\n"),
        r("a backslash", "Host: a\\b\r\n"),
        r("user information", "Host: u@a\r\n"),
        r("user information with a password", "Host: u:p@a\r\n"),
        r("a scheme", "Host: http://a\r\n"),
        r("a port of letters", "Host: a:port\r\n"),
        r("a negative port", "Host: a:-80\r\n"),
        r("a port of six digits", "Host: a:100000\r\n"),
        r("two ports", "Host: a:80:80\r\n"),
        r("only a port", "Host: :80\r\n"),
        r("an IPv6 address without brackets", "Host: ::1\r\n"),
        r("a bracket that does not end", "Host: [::1\r\n"),
        r("something behind the bracket", "Host: [::1]x\r\n"),
        r("no address in brackets", "Host: [x]\r\n"),
        r("a zone", "Host: [fe80::1%25lo]\r\n"),
        r("a control byte", "Host: a\x01\r\n"),
        r("a tab inside", "Host: a\tb\r\n"),
        r("bytes over 0x80", "Host: m\u{fc}nchen.example\r\n"),
        r("300 bytes", &format!("Host: {}\r\n", "a".repeat(300))),
        r("markup", "Host: <b>\r\n"),
        s("with a port", "Host: a:80\r\n"),
        s("with an empty port", "Host: a:\r\n"),
        s("IPv6", "HOST: [::1]:80\r\n"),
        Case::refused("twice in 1.0", "GET /x HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        Case::refused("empty in 1.0", "GET /x HTTP/1.0\r\nHost:\r\n\r\n", 400),
        Case::refused("user information in 1.0", "GET /x HTTP/1.0\r\nHost: u@a\r\n\r\n", 400),
    ]);
}

#[test]
#[rustfmt::skip]
fn targets() {
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
    let r = |name, line: &str| Case::refused(name, request(line), 400);
    let s = |name, line: &str, seen| Case::served(name, request(line), &[(seen, "")]);
    hold(&[
        r("empty", "GET "),
        r("two blanks before", "GET  /x"),
        r("a blank inside", "GET /x y"),
        r("a tab inside", "GET /x\ty"),
        r("a NUL", "GET /x\0"),
        r("a control byte", "GET /x\x01"),
        r("DEL", "GET /x\x7f"),
        r("a bare CR", "GET /x\ry"),
        r("a bare LF", "GET /x\ny"),
        r("a fragment", "GET /x#y"),
        r("an empty fragment", "GET /x#"),
        r("bytes over 0x80", "GET /\u{e4}"),
        r("an angle bracket", "GET /<script>"),
        r("the other one in the query", "GET /x?y=>"),
        r("a backtick in the path", "GET /`x`"),
        r("a double quote in the query", "GET /x?y=\"z\""),
        r("no slash", "GET nowhere"),
        r("only a query", "GET ?x"),
        r("an authority", "GET x:80"),
        r("an asterisk of a GET", "GET *"),
        r("an asterisk and more", "OPTIONS *x"),
        r("two asterisks", "OPTIONS **"),
        r("a scheme that is not ours", "GET ftp://x/"),
        r("a scheme of one slash", "GET http:/x"),
        r("a file", "GET file:///etc/passwd"),
        r("absolute without a host", "GET http:///x"),
        r("absolute with only a port", "GET http://:80/x"),
        r("absolute with user information", "GET http://u@h/x"),
        r("absolute with user information that looks like a host", "GET http://x:80@evil/x"),
        r("absolute with a fragment", "GET http://h/x#y"),
        r("absolute with a blank in the host", "GET http://h h/x"),
        r("absolute with a backslash in the host", "GET http://h\\@evil/x"),
        r("absolute with a broken bracket", "GET http://[::1/x"),
        Case::refused("absolute without Host", "GET http://h/x HTTP/1.1\r\n\r\n", 400),
        Case::refused("absolute with two Hosts", "GET http://h/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        s("an asterisk of an OPTIONS", "OPTIONS *", "*"),
        s("two slashes", "GET //x", "//x"),
        s("dots are the backend's to read", "GET /a/../../x?y=/../", "/a/../../x?y=/../"),
        s("so are escapes", "GET /%00%2e%2e%2f%zz", "/%00%2e%2e%2f%zz"),
        s("so are quotes and brackets", "GET /\"'[]{}|\\^?'[]{}|\\^`", "/\"'[]{}|\\^?'[]{}|\\^`"),
        s("absolute", "GET http://h:8080/x?y", "/x?y"),
        s("absolute in upper case", "GET HTTP://H/x", "/x"),
        s("absolute with https", "GET https://h/x", "/x"),
        s("absolute without a path", "GET http://h", "/"),
        s("absolute with a query and no path", "GET http://h?y=/z", "/?y=/z"),
        s("absolute OPTIONS without a path", "OPTIONS http://h", "*"),
        s("absolute IPv6", "GET http://[::1]:80/x", "/x"),
    ]);
}

#[test]
fn an_absolute_form_counts_for_more_than_host() {
    let backend = Recorder::start();
    let rig = Plan::new(&[backend.address()]).top("workers: 1").run();
    for (target, host) in [
        ("http://inner:8080/g", "inner:8080"),
        ("http://inner?g", "inner"),
        ("HTTP://Inner", "Inner"),
    ] {
        rig.ask(format!("GET {target} HTTP/1.1\r\nHost: outer\r\n\r\n"));
        let seen = backend.take();
        let head = &seen.requests[0].head;
        for name in ["host", "x-forwarded-host"] {
            let got = sluicegate_tests::client::field(head, name);
            assert_eq!(got, Some(host), "{target}: {head}");
        }
    }
}
