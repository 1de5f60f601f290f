//! Answers that are no verdicts.

use super::super::guest::{BODY, NEXT, POOL, REPLY, SET, STATUS, op, verdict};
use super::APPEND;

const TARGET: u8 = 16;
const AUTHORITY: u8 = 17;

/// Each is refused as a whole in the request phase.
pub fn bad_verdicts() -> Vec<(&'static str, Vec<u8>)> {
    let status = |status: u16| op(STATUS, "", &status.to_le_bytes());
    let next = |code, value: &[u8]| verdict(NEXT, &[op(code, "", value)]);
    let reply = |code: u16| verdict(REPLY, &[status(code)]);
    vec![
        ("unknown verdict", vec![77]),
        ("a verdict kept for later", vec![4]),
        ("truncated operation", vec![NEXT, SET]),
        (
            "an operation without an end",
            vec![NEXT, BODY, 0, 0, 0, 255, 255, 255, 255],
        ),
        (
            "a name without an end",
            vec![NEXT, SET, 0, 255, 255, 0, 0, 0, 0],
        ),
        ("unknown operation", next(99, b"")),
        (
            "a byte that is kept for later",
            vec![NEXT, SET, 1, 1, 0, 0, 0, 0, 0, b'a'],
        ),
        ("a pool the plan has not", next(POOL, &7u32.to_le_bytes())),
        ("a pool without a number", next(POOL, b"")),
        (
            "too many edits",
            verdict(NEXT, &vec![op(APPEND, "x", b""); 1025]),
        ),
        ("a body without a reply", next(BODY, b"x")),
        ("a status without a reply", verdict(NEXT, &[status(200)])),
        ("status 42", reply(42)),
        ("status 0", reply(0)),
        ("status 100", reply(100)),
        ("status 101", reply(101)),
        ("status 199", reply(199)),
        ("status 1000", reply(1000)),
        ("a target in absolute form", next(TARGET, b"http://evil/")),
        (
            "a target with a line end",
            next(TARGET, b"/ HTTP/1.1\r\nX: y\r\n\r\nGET /"),
        ),
        ("a target with a space", next(TARGET, b"/a b")),
        ("a target that is not ASCII", next(TARGET, b"/\xff")),
        (
            "an authority with a line end",
            next(AUTHORITY, b"a\r\nX: y"),
        ),
        ("an authority with a path", next(AUTHORITY, b"a/b")),
        ("an empty authority", next(AUTHORITY, b"")),
        ("an empty sticky key", next(33, b"")),
        ("a sticky key of 64 KiB", next(33, &[b'k'; 40_000])),
        ("an endpoint that is no text", next(34, b"\xff")),
    ]
}

/// Fields (name and value) that no filter may write, to requests or to responses.
pub fn bad_fields() -> Vec<(&'static str, &'static str, &'static [u8])> {
    vec![
        ("CR LF in a value", "x-a", b"b\r\nset-cookie: c"),
        ("LF in a value", "x-a", b"b\nc"),
        ("NUL in a value", "x-a", b"b\0"),
        ("a space in a name", "x a", b"b"),
        ("a colon in a name", "x-a:", b"b"),
        ("an empty name", "", b"b"),
        ("a forged Content-Length", "Content-Length", b"5"),
        (
            "a forged Transfer-Encoding",
            "transfer-encoding",
            b"chunked",
        ),
        ("a forged Connection", "connection", b"close"),
        ("a forged Host", "host", b"evil"),
        ("a forged Upgrade", "upgrade", b"websocket"),
        ("a forged Trailer", "trailer", b"x"),
        ("a forged Keep-Alive", "keep-alive", b"timeout=1"),
    ]
}
