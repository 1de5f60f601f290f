//! The bytes of a WebSocket pass unchanged, whatever frames they are and however they are cut: each sequence is played
//! to the same backend direct and through the proxy.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;

use super::rig::Plan;

/// A client's frame: masked, whatever else is wrong with it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=65535 => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// Unmasks what comes frame by frame and sends it back as a server's frames; a close is answered and ends it. Judges
/// nothing, so that what is broken comes back broken.
fn echo() -> Backend {
    Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        if raw.head().is_err() {
            return;
        }
        let _ = raw.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        while let Ok(head) = raw.exactly(2) {
            let len = match head[1] & 0x7f {
                n @ 0..=125 => Ok(u64::from(n)),
                126 => raw
                    .exactly(2)
                    .map(|b| u64::from(u16::from_be_bytes([b[0], b[1]]))),
                _ => raw
                    .exactly(8)
                    .map(|b| u64::from_be_bytes(b.try_into().expect("eight"))),
            };
            let Ok(mask) = raw.exactly(4) else { return };
            let Ok(payload) = raw.exactly(len.unwrap_or(0) as usize) else {
                return;
            };
            let payload: Vec<u8> = payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(b, m)| b ^ m)
                .collect();
            let mut answer = vec![head[0]];
            answer.extend((payload.len() as u64).to_be_bytes());
            answer.extend(payload);
            if raw.send(answer).is_err() || head[0] & 0x0f == 8 {
                return;
            }
        }
    })
}

/// Sends `bytes` in pieces and gives everything that comes until the end.
fn play(address: SocketAddr, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut raw = Raw::connect(address);
    raw.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("send");
    assert!(raw.head().expect("a head").contains(" 101 "));
    let writer = raw.stream().try_clone().expect("clone");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for part in bytes.chunks(piece) {
                if (&writer).write_all(part).is_err() {
                    return;
                }
            }
            let _ = writer.shutdown(Shutdown::Write);
        });
        raw.to_end().expect("an end in order")
    })
}

#[test]
fn frames_of_every_kind_pass_unchanged() {
    const FIN: u8 = 0x80;
    let backend = echo();
    let rig = Plan::new(&[backend.address()]).run();
    let before = rig.proxy.settled();
    let close = frame(FIN | 8, &[3, 0xe8]);
    let large = vec![b'l'; 1 << 20];
    let cases: Vec<(&str, Vec<Vec<u8>>, usize)> = vec![
        ("text", vec![frame(FIN | 1, b"hello")], 1),
        ("nothing", vec![frame(FIN | 1, b"")], 1),
        (
            "lengths at the borders",
            [125, 126, 127, 65535, 65536]
                .map(|n| frame(FIN | 2, &large[..n]))
                .to_vec(),
            4099,
        ),
        ("a megabyte", vec![frame(FIN | 2, &large)], 997),
        (
            "a megabyte at once",
            vec![frame(FIN | 2, &large)],
            usize::MAX,
        ),
        (
            "fragments with a ping between",
            vec![frame(1, b"one"), frame(FIN | 9, b"p"), frame(FIN, b"two")],
            2,
        ),
        (
            "every opcode",
            (0..16)
                .filter(|o| *o != 8)
                .map(|o| frame(FIN | o, b"x"))
                .collect(),
            3,
        ),
        (
            "every reserved bit",
            [0x40, 0x20, 0x10]
                .map(|bit| frame(FIN | bit | 1, b"x"))
                .to_vec(),
            3,
        ),
        (
            "broken UTF-8",
            [&b"\x80"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xff"]
                .map(|b| frame(FIN | 1, b))
                .to_vec(),
            1,
        ),
        (
            "what looks like HTTP",
            vec![frame(FIN | 1, b"GET / HTTP/1.1\r\n\r\n0\r\n\r\n")],
            5,
        ),
        (
            "a control frame too long",
            vec![frame(FIN | 9, &[b'p'; 200])],
            7,
        ),
        (
            "ten thousand pings",
            vec![frame(FIN | 9, b"p"); 10_000],
            1021,
        ),
        (
            "half a frame",
            vec![frame(FIN | 1, b"hello")[..4].to_vec()],
            1,
        ),
        (
            "a close with a long reason",
            vec![frame(FIN | 8, &[b'r'; 125])],
            1,
        ),
        (
            "data after a close",
            vec![close.clone(), frame(FIN | 1, b"x")],
            1,
        ),
    ];
    let differ: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|(name, frames, piece)| {
                let (direct, proxied) = (backend.address(), rig.bind);
                let close = &close;
                scope.spawn(move || {
                    let whole = matches!(*name, "half a frame" | "data after a close");
                    let mut bytes = frames.concat();
                    if !whole {
                        bytes.extend(close);
                    }
                    let expected = play(direct, &bytes, *piece);
                    (play(proxied, &bytes, *piece) != expected).then_some(*name)
                })
            })
            .collect();
        let each = running.into_iter();
        each.filter_map(|r| r.join().expect("no panic")).collect()
    });
    assert!(differ.is_empty(), "{differ:?}");
    rig.proxy.assert_nothing_left(before, 16 << 20);
}
