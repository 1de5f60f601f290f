//! The table: one line of behaviour, one line of consequence.

use super::table::{
    Then, failure, malformed, run, too_large, trailers_too_large, truncated, whole,
};

const OK: &str = "HTTP/1.1 200 OK\r\n";
const POST: &str = "POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbeginning";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn connections_that_break() {
    let reset = |name| failure(name, 502, "connection_terminated", "upstream-reset");
    run(vec![
        reset("closes before any byte"),
        reset("resets before any byte").then(Then::Reset),
        reset("resets in the head")
            .says("HTTP/1.1 200 OK\r\nX")
            .then(Then::Reset),
        malformed("closes in the status line", "HTTP/1.1 20"),
        malformed("closes in the fields", "HTTP/1.1 200 OK\r\nContent-"),
        malformed(
            "closes before the empty line",
            "HTTP/1.1 200 OK\r\nX: y\r\n",
        ),
        truncated(
            "closes in a counted body",
            "hello",
            says(OK, "Content-Length: 10\r\n\r\nhello"),
        ),
        truncated(
            "resets in a counted body",
            "hello",
            says(OK, "Content-Length: 10\r\n\r\nhello"),
        )
        .then(Then::Reset),
        truncated(
            "closes between chunks",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhello\r\n"),
        ),
        truncated(
            "closes in a chunk",
            "5\r\nhello\r\n",
            says(CHUNKED, "a\r\nhello"),
        ),
        truncated(
            "closes in a chunk's size",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhello\r\n1"),
        ),
        truncated(
            "closes before the last line",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhello\r\n0\r\n"),
        ),
        truncated(
            "closes in the trailers",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\n"),
        ),
        truncated(
            "resets after the last chunk",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhello\r\n0\r\n"),
        )
        .then(Then::Reset),
        truncated(
            "resets in a body until the end",
            "5\r\nhello\r\n",
            says(OK, "\r\nhello"),
        )
        .then(Then::Reset),
        whole(
            "ends a body by closing",
            200,
            "5\r\nhello\r\n0\r\n\r\n",
            says(OK, "\r\nhello"),
        ),
    ]);
}

#[test]
fn heads_that_are_none() {
    let mut many = String::from(OK);
    (0..2000).for_each(|n| many.push_str(&format!("X-{n}: y\r\n")));
    run(vec![
        malformed("garbage", "\x16\x03\x01 nonsense\r\n\r\n"),
        malformed("HTTP/0.9", "<html>hello</html>"),
        malformed("two bytes", "hi"),
        malformed(
            "another version",
            "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        )
        .then(Then::Listen),
        malformed("no blank after the version", "HTTP/1.1200 OK\r\n\r\n").then(Then::Listen),
        malformed("status 99", "HTTP/1.1 099 Low\r\n\r\n").then(Then::Listen),
        malformed("status of two digits", "HTTP/1.1 99 Low\r\n\r\n").then(Then::Listen),
        malformed("status 1000", "HTTP/1.1 1000 High\r\n\r\n").then(Then::Listen),
        malformed("status abc", "HTTP/1.1 abc What\r\n\r\n").then(Then::Listen),
        malformed("status -20", "HTTP/1.1 -20 What\r\n\r\n").then(Then::Listen),
        malformed(
            "NUL in a value",
            says(OK, "X: a\0b\r\nContent-Length: 0\r\n\r\n"),
        )
        .then(Then::Listen),
        malformed(
            "a bare CR in a value",
            says(OK, "X: a\rb\r\nContent-Length: 0\r\n\r\n"),
        )
        .then(Then::Listen),
        malformed(
            "a folded line",
            says(OK, "X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        )
        .then(Then::Listen),
        malformed(
            "a blank in a name",
            says(OK, "X y: a\r\nContent-Length: 0\r\n\r\n"),
        )
        .then(Then::Listen),
        // A proxy takes these out (RFC 9112 §5.1); they have to be seen as what they are.
        whole(
            "blanks before the colon",
            200,
            "hello",
            says(OK, "X : a\r\nContent-Length \t : 5\r\n\r\nhello"),
        ),
        whole(
            "a blank before the colon of the coding",
            200,
            "5\r\nhello\r\n0\r\n\r\n",
            says(
                OK,
                "Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
        ),
        malformed(
            "a length and a coding behind a blank",
            says(
                OK,
                "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            ),
        )
        .then(Then::Listen),
        malformed("no name", says(OK, ": a\r\nContent-Length: 0\r\n\r\n")).then(Then::Listen),
        malformed("no colon", says(OK, "X\r\nContent-Length: 0\r\n\r\n")).then(Then::Listen),
        too_large(
            "a head of 200 KB",
            format!("{OK}X: {}\r\n\r\n", "y".repeat(200_000)),
        )
        .then(Then::Listen),
        too_large("2000 fields", format!("{many}\r\n")).then(Then::Listen),
        too_large("a head without end", OK)
            .endlessly("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        too_large("a status line without end", "HTTP/1.1 200 ")
            .endlessly("OOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOOO"),
    ]);
}

#[test]
fn lengths_that_contradict() {
    let bad = |name, fields: &str| {
        malformed(name, format!("{OK}{fields}\r\n\r\nhello")).then(Then::Listen)
    };
    run(vec![
        bad("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        bad("two lengths in one line", "Content-Length: 5, 6"),
        bad(
            "a length and chunks",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        bad("a signed length", "Content-Length: +5"),
        bad("a negative length", "Content-Length: -5"),
        bad("a hexadecimal length", "Content-Length: 0x5"),
        bad("an empty length", "Content-Length:"),
        bad(
            "a length over 64 bits",
            "Content-Length: 18446744073709551621",
        ),
        bad("an unknown coding", "Transfer-Encoding: gzip"),
        bad("chunked not last", "Transfer-Encoding: chunked, gzip"),
        bad("chunked twice", "Transfer-Encoding: chunked, chunked"),
        malformed(
            "chunks in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .then(Then::Listen),
        whole(
            "equal lengths",
            200,
            "hello",
            says(OK, "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        ),
    ]);
}

#[test]
fn chunks_that_are_none() {
    let bad = |name, tail: &str| {
        truncated(
            name,
            "5\r\nhello\r\n",
            format!("{CHUNKED}5\r\nhello\r\n{tail}"),
        )
        .then(Then::Listen)
    };
    let over = |name, tail: &str| {
        let says = format!("{CHUNKED}5\r\nhello\r\n{tail}");
        trailers_too_large(name, "5\r\nhello\r\n", says).then(Then::Listen)
    };
    run(vec![
        bad("a size that is no number", "zz\r\nhello\r\n0\r\n\r\n"),
        bad(
            "a size over 64 bits",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        bad("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("an empty size", "\r\n0\r\n\r\n"),
        bad("a size that ends in LF", "5\nhello\r\n0\r\n\r\n"),
        truncated(
            "a chunk with another end",
            "5\r\nhello\r\n",
            says(CHUNKED, "5\r\nhelloXX0\r\n\r\n"),
        )
        .then(Then::Listen),
        bad(
            "extensions of 100 KB",
            &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000)),
        ),
        bad("a trailer that is no field", "0\r\nno colon\r\n\r\n"),
        bad("a trailer with a blank in its name", "0\r\nx y: z\r\n\r\n"),
        over(
            "a trailer of 200 KB",
            &format!("0\r\nX: {}\r\n\r\n", "y".repeat(200_000)),
        ),
        over(
            "2000 trailers",
            &format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000)),
        ),
        over("trailers without end", "0\r\n")
            .endlessly("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        bad("extensions without end", "1;").endlessly("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        whole(
            "trailers that only a head may have",
            200,
            "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
            says(
                CHUNKED,
                "5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\n\
                 Location: /x\r\nConnection: close\r\nHost: y\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            ),
        ),
    ]);
}

#[test]
fn more_than_there_may_be() {
    const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nowned";
    let with = |head: &str| format!("{head}{SMUGGLED}");
    run(vec![
        whole("a body on 204", 204, "", with("HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n")).then(Then::Listen),
        whole("a body on 304", 304, "", with("HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n")).then(Then::Listen),
        whole("a body on HEAD", 200, "", with("HTTP/1.1 200 N\r\nContent-Length: 5\r\n\r\n"))
            .to("HEAD PATH HTTP/1.1\r\nHost: x\r\n\r\n")
            .then(Then::Listen),
        whole("a second response", 200, "hello", with("HTTP/1.1 200 N\r\nContent-Length: 5\r\n\r\nhello"))
            .then(Then::Listen),
        whole("a second response after chunks", 200, "5\r\nhello\r\n0\r\n\r\n", with(&says(CHUNKED, "5\r\nhello\r\n0\r\n\r\n")))
            .then(Then::Listen),
        whole("bytes behind a body", 200, "hello", says(OK, "Content-Length: 5\r\n\r\nhello!")).then(Then::Listen),
        malformed("a protocol nobody asked for", "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .then(Then::Hang),
        malformed("interim responses without end", "").endlessly("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        whole("hints", 200, "hello", "HTTP/1.1 103 H\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            .after(&[103])
            .then(Then::Close),
        whole("a 100 nobody waits for", 200, "hello", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        whole("an interim response with a length", 200, "hello", "HTTP/1.1 102 P\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            .after(&[102]),
    ]);
}

#[test]
fn answers_that_take_their_time() {
    let late =
        |name| failure(name, 504, "http_response_timeout", "response-timeout").then(Then::Hang);
    run(vec![
        late("silence"),
        late("silence in the head").says("HTTP/1.1 200 OK\r\nX: "),
        late("a head by single bytes").slowly("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        late("interim responses by single bytes")
            .slowly("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 103 E\r\n\r\n"),
        whole(
            "a body by single bytes",
            200,
            "hello, world",
            says(OK, "Content-Length: 12\r\n\r\n"),
        )
        .slowly("hello, world"),
        whole(
            "an answer before the upload ends",
            413,
            "",
            "HTTP/1.1 413 L\r\nContent-Length: 0\r\n\r\n",
        )
        .to(POST)
        .then(Then::Listen),
        whole(
            "an answer before the upload ends, and an end",
            413,
            "big",
            "HTTP/1.1 413 L\r\nContent-Length: 3\r\n\r\nbig",
        )
        .to(POST),
        whole(
            "an answer before the upload ends, and Connection: close",
            413,
            "big",
            "HTTP/1.1 413 L\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
        )
        .to(POST),
    ]);
}

#[test]
fn http_1_0() {
    run(vec![
        whole(
            "until the end",
            200,
            "5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ),
        whole(
            "with a length",
            200,
            "hello",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        )
        .then(Then::Listen),
        truncated(
            "with a length that is not reached",
            "hell",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        ),
        whole(
            "bare line feeds",
            200,
            "hello",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        )
        .then(Then::Close),
    ]);
}

fn says(head: &str, rest: &str) -> String {
    format!("{head}{rest}")
}
