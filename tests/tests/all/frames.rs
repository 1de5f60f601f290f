//! HTTP/2 frames by hand, for what no well-behaved client sends.

use std::net::SocketAddr;

use sluicegate_tests::client::Raw;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags; an acknowledgement has the bit of END_STREAM.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `:status` of HPACK's static table.
pub const STATUS_200: u8 = 0x88;
pub const STATUS_400: u8 = 0x8c;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// END_STREAM of DATA and HEADERS.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// `:status` at the front of a response's HEADERS, which must be the first of its connection to carry it.
    pub fn status(&self) -> u16 {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match *self.payload.as_slice() {
            [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
            [0x48, 3, a, b, c, ..] => [a, b, c]
                .iter()
                .fold(0, |n, digit| n * 10 + u16::from(digit - b'0')),
            [0x48, len @ 0x82..=0x83, ..] => digits(&self.payload[2..2 + usize::from(len & 0x7f)]),
            _ => panic!("no status in {:x?}", self.payload),
        }
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).expect("an error code");
        u32::from_be_bytes(code.try_into().expect("four bytes"))
    }
}

/// Three digits in HPACK's Huffman code: 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let mut bits =
        bytes.iter().fold(0u32, |all, b| all << 8 | u32::from(*b)) << (32 - 8 * bytes.len());
    (0..3).fold(0, |number, _| {
        let (digit, len) = match bits >> 27 {
            short @ 0..=2 => (short, 5),
            _ => ((bits >> 26) - 0x19 + 3, 6),
        };
        bits <<= len;
        number * 10 + u16::try_from(digit).expect("a digit")
    })
}

/// A connection with prior knowledge whose preface is sent.
pub struct Client {
    pub raw: Raw,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let mut raw = Raw::connect(address);
        raw.send(PREFACE).expect("send");
        raw.send(frame(SETTINGS, 0, 0, &[])).expect("send");
        Self { raw }
    }

    /// The other end of such a connection: a backend's, which takes what its client may send.
    pub fn accept(stream: std::net::TcpStream) -> Option<Self> {
        let mut raw = Raw::over(stream);
        (raw.exactly(PREFACE.len()).ok()? == PREFACE.as_bytes()).then_some(())?;
        raw.send(frame(SETTINGS, 0, 0, &[])).ok()?;
        raw.send(frame(SETTINGS, ACK, 0, &[])).ok()?;
        Some(Self { raw })
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
            let frame = self.next().expect("a frame");
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }

    /// The next frame; none when the connection ended.
    pub fn next(&mut self) -> Option<Frame> {
        let head = self.raw.exactly(9).ok()?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: self.raw.exactly(len).ok()?,
        })
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
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields))
}

/// A HEADERS frame after which a body comes.
pub fn headers_open(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fields))
}

/// HPACK literals without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(integer(0, 7, text.len()));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// HPACK's integer with a prefix of so many bits below `flags`.
pub fn integer(flags: u8, prefix: u8, value: usize) -> Vec<u8> {
    let max = (1usize << prefix) - 1;
    let small = |n: usize| u8::try_from(n).expect("seven bits");
    if value < max {
        return vec![flags | small(value)];
    }
    let (mut out, mut rest) = (vec![flags | small(max)], value - max);
    while rest >= 128 {
        out.push(small(rest % 128) | 0x80);
        rest /= 128;
    }
    out.push(small(rest));
    out
}

pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

pub fn data_end(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// SETTINGS with one entry.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(
        SETTINGS,
        0,
        0,
        &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat(),
    )
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
