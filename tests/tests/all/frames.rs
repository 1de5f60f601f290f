//! HTTP/2 frames by hand, for what no well-behaved client sends.

use std::net::SocketAddr;

use sluicegate_tests::client::Raw;

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;

/// `:status` of HPACK's static table.
pub const STATUS_200: u8 = 0x88;
pub const STATUS_400: u8 = 0x8c;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection with prior knowledge whose preface is sent.
pub struct Client {
    pub raw: Raw,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let mut raw = Raw::connect(address);
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("send");
        raw.send(frame(SETTINGS, 0, 0, &[])).expect("send");
        Self { raw }
    }

    /// A GET of `path` without a body.
    pub fn request(&mut self, stream: u32, path: &str) {
        self.raw.send(get(stream, path)).expect("send");
    }

    /// Cancels `stream`.
    pub fn cancel(&mut self, stream: u32) {
        self.raw.send(cancel(stream)).expect("send");
    }

    /// The next frame of one of these kinds; others are passed over.
    pub fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let head = self.raw.exactly(9).expect("a frame");
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = self.raw.exactly(len).expect("its payload");
            if kinds.contains(&head[3]) {
                let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                return Frame {
                    kind: head[3],
                    stream,
                    payload,
                };
            }
        }
    }
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "site"),
    ];
    headers(stream, &fields)
}

/// A HEADERS frame that ends its stream, as HPACK literals without indexing.
pub fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        for text in [name, value] {
            if text == name {
                block.push(0);
            }
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    frame(HEADERS, 0x5, stream, &block)
}

pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let mut out = len.to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}
