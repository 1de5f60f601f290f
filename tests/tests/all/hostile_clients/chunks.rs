//! Chunked bodies, well-formed to the byte or broken off (RFC 9112 §7.1).

use super::{Case, hold};

const HEAD: &str = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
#[rustfmt::skip]
fn malformed_chunks_end_the_exchange_and_are_never_made_whole() {
    let r = |name, chunks: &str| Case::broken_off(name, format!("{HEAD}{chunks}"), 400);
    let long = |what: &str, n| what.repeat(n);
    hold(&[
        r("no digit", "x\r\n"),
        r("empty size", "\r\nhello\r\n0\r\n\r\n"),
        r("blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        r("size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        r("size with a minus", "-5\r\nhello\r\n0\r\n\r\n"),
        r("size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        r("size with an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        r("size with an h", "5h\r\nhello\r\n0\r\n\r\n"),
        r("size 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        r("size 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        r("size 2^68 - 1", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        r("size of a thousand zeros", &format!("{}5\r\nhello\r\n0\r\n\r\n", long("0", 1000))),
        r("bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        r("bare CR behind the size", "5\rhello\r\n0\r\n\r\n"),
        r("two CRs behind the size", "5\r\r\nhello\r\n0\r\n\r\n"),
        r("NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n"),
        r("vertical tab behind the size", "5\x0b\r\nhello\r\n0\r\n\r\n"),
        r("bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        r("nothing behind the data", "5\r\nhello0\r\n\r\n"),
        r("more data than said", "5\r\nhello!\r\n0\r\n\r\n"),
        r("less data than said", "7\r\nhello\r\n0\r\n\r\n"),
        r("second chunk broken", "5\r\nhello\r\nzz\r\n0\r\n\r\n"),
        r("control byte in an extension", "5;a=\x01\r\nhello\r\n0\r\n\r\n"),
        r("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        r("bare LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        r("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        r("8 KiB of extension", &format!("5;{}\r\nhello\r\n0\r\n\r\n", long("x", 8192))),
        r("extensions of 8 KiB over all chunks", &format!("{}0\r\n\r\n", long("1;extension=ofthechunk\r\nx\r\n", 400))),
        r("endless extension", &format!("5;{}", long("x", 200_000))),
        r("bare LF behind the last chunk", "0\n\r\n"),
        r("bare LF at the end", "0\r\n\n"),
        r("trailer without a colon", "0\r\nnot a trailer\r\n\r\n"),
        r("trailer with a space before the colon", "0\r\nA : b\r\n\r\n"),
        r("trailer without a name", "0\r\n: b\r\n\r\n"),
        r("trailer that ends in a bare LF", "0\r\nA: b\n\r\n"),
        r("trailer with a bare CR", "0\r\nA: b\rc\r\n\r\n"),
        r("trailer with a NUL", "0\r\nA: b\0\r\n\r\n"),
        r("folded trailer", "0\r\nA: b\r\n c\r\n\r\n"),
        r("100 KiB of trailer", &format!("0\r\nA: {}\r\n\r\n", long("b", 100 << 10))),
        r("endless trailer", &format!("0\r\nA: {}", long("b", 200_000))),
        r("2,000 trailers", &format!("0\r\n{}\r\n", long("A: b\r\n", 2000))),
    ]);
}

#[test]
#[rustfmt::skip]
fn chunks_that_are_odd_but_clear_arrive_as_the_bytes_they_carry() {
    let s = |name, chunks: &str| Case::served(name, format!("{HEAD}{chunks}"), &[("/x", "hello")]);
    hold(&[
        s("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
        s("a chunk for each byte", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
        s("zeros before the size", "00005\r\nhello\r\n000\r\n\r\n"),
        s("blanks behind the size", "5 \t\r\nhello\r\n0 \r\n\r\n"),
        s("extensions", "2;a\r\nhe\r\n3 ; b=\"c;d\" ;e\r\nllo\r\n0;f=g\r\n\r\n"),
        s("an extension in bytes over 0x80", "5;\u{e4}=\u{f6}\r\nhello\r\n0\r\n\r\n"),
        s("a request in the extension", "5;GET / HTTP/1.1\r\nhello\r\n0\r\n\r\n"),
        s("trailers", "5\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"),
        s("trailers that frame, route or authenticate",
            "5\r\nhello\r\n0\r\nContent-Length: 7\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nAuthorization: x\r\n\
             Cookie: x\r\nConnection: close\r\nTE: x\r\nUpgrade: x\r\nX-Forwarded-For: 6.6.6.6\r\nTrailer: x\r\n\r\n"),
    ]);
}
