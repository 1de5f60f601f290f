//! The chunked coding (RFC 9112 §7.1), decoded strictly and written anew.
//!
//! The decoder is fed slices as they arrive and says which bytes of them are data, so that nothing is copied. Bounds:
//! a chunk size of at most 15 hexadecimal digits, 4 KiB of extensions over the whole body (nobody uses more, and they
//! cost the receiver work for nothing), trailers within the limits of the message's fields.

use crate::head::{Fields, is_field_value, is_token};

/// Bytes of extensions that one body may carry in all.
const EXTENSION_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Digits of the size so far; `digits` counts them.
    Size {
        value: u64,
        digits: u8,
    },
    /// After the digits: blanks and extensions up to the CR.
    Extension,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer section; the current line is collected in `line`.
    Trailer,
    Done,
}

#[derive(Debug)]
pub struct Decoder {
    state: State,
    next_size: u64,
    extension_bytes: usize,
    line: Vec<u8>,
    trailer_bytes: usize,
    trailers: Fields,
    trailer_count: usize,
    limits: TrailerLimits,
    /// The trailers are over the limits.
    over: bool,
}

/// Bounds of a trailer section.
#[derive(Debug, Clone, Copy)]
pub struct TrailerLimits {
    pub bytes: usize,
    pub fields: usize,
}

/// What `Decoder::decode` found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// `input[range]` is data; `consumed` bytes are done with.
    Data {
        range: std::ops::Range<usize>,
        consumed: usize,
    },
    /// All of the input was framing; more is needed.
    More,
    /// The body is complete; the rest of the input from `consumed` belongs to the next message.
    End { consumed: usize },
}

/// The body is not well-formed chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Decoder {
    pub fn new(limits: TrailerLimits) -> Self {
        Self {
            state: State::Size {
                value: 0,
                digits: 0,
            },
            next_size: 0,
            extension_bytes: 0,
            line: Vec::new(),
            trailer_bytes: 0,
            trailers: Fields::default(),
            trailer_count: 0,
            limits,
            over: false,
        }
    }

    /// The body was refused for the size of its trailers.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The trailer fields, once `Step::End` was returned.
    pub fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    /// Looks at the front of `input`. Call again with what lies behind `consumed`.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        let mut at = 0;
        while at < input.len() {
            let byte = input[at];
            match self.state {
                State::Size { value, digits } => {
                    at += 1;
                    match (byte as char).to_digit(16) {
                        Some(_) if digits == 15 => return Err(Malformed),
                        Some(d) => {
                            self.state = State::Size {
                                value: value << 4 | d as u64,
                                digits: digits + 1,
                            }
                        }
                        None if digits == 0 => return Err(Malformed),
                        None => {
                            self.next_size = value;
                            self.state = match byte {
                                b'\r' => State::SizeLf,
                                // Blanks before the semicolon are in use (RFC 9112 §7.1.1, "bad" white space).
                                b';' | b' ' | b'\t' => State::Extension,
                                _ => return Err(Malformed),
                            };
                        }
                    }
                }
                State::Extension => {
                    at += 1;
                    self.extension_bytes += 1;
                    match byte {
                        b'\r' => self.state = State::SizeLf,
                        b'\t' | 0x20..=0x7e | 0x80..
                            if self.extension_bytes <= EXTENSION_BYTES_MAX => {}
                        _ => return Err(Malformed),
                    }
                }
                State::SizeLf => {
                    at += 1;
                    if byte != b'\n' {
                        return Err(Malformed);
                    }
                    self.state = if self.next_size == 0 {
                        State::Trailer
                    } else {
                        State::Data(self.next_size)
                    };
                }
                State::Data(left) => {
                    let take = left.min((input.len() - at) as u64) as usize;
                    self.state = if take as u64 == left {
                        State::DataCr
                    } else {
                        State::Data(left - take as u64)
                    };
                    return Ok(Step::Data {
                        range: at..at + take,
                        consumed: at + take,
                    });
                }
                State::DataCr => {
                    at += 1;
                    if byte != b'\r' {
                        return Err(Malformed);
                    }
                    self.state = State::DataLf;
                }
                State::DataLf => {
                    at += 1;
                    if byte != b'\n' {
                        return Err(Malformed);
                    }
                    self.state = State::Size {
                        value: 0,
                        digits: 0,
                    };
                }
                State::Trailer => {
                    at += 1;
                    if byte == b'\n' {
                        if self.line.pop() != Some(b'\r') {
                            return Err(Malformed);
                        }
                        if self.line.is_empty() {
                            self.state = State::Done;
                            return Ok(Step::End { consumed: at });
                        }
                        self.trailer_line()?;
                    } else {
                        self.trailer_bytes += 1;
                        if self.trailer_bytes > self.limits.bytes {
                            self.over = true;
                            return Err(Malformed);
                        }
                        self.line.push(byte);
                    }
                }
                State::Done => return Ok(Step::End { consumed: at }),
            }
        }
        Ok(if self.state == State::Done {
            Step::End { consumed: at }
        } else {
            Step::More
        })
    }

    fn trailer_line(&mut self) -> Result<(), Malformed> {
        let colon = memchr::memchr(b':', &self.line).ok_or(Malformed)?;
        let (name, value) = (
            self.line[..colon].to_ascii_lowercase(),
            super::framing::trim(&self.line[colon + 1..]),
        );
        self.trailer_count += 1;
        self.over = self.trailer_count > self.limits.fields;
        if !is_token(&name) || !is_field_value(value) || self.over {
            return Err(Malformed);
        }
        self.trailers.append(&name, value);
        self.line.clear();
        Ok(())
    }
}

/// Writes the size line of a chunk of `len` bytes; the data and `\r\n` follow.
pub fn write_size(out: &mut Vec<u8>, len: usize) {
    let mut digits = [0u8; 18];
    let mut at = digits.len() - 2;
    digits[at..].copy_from_slice(b"\r\n");
    let mut n = len;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[n & 15];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes the last chunk and the trailers.
pub fn write_end(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (name, value) in trailers.iter() {
            super::write::field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: TrailerLimits = TrailerLimits {
        bytes: 1024,
        fields: 8,
    };

    /// Feeds `input` in pieces of `step` bytes; the data and what was left over.
    fn decode_all(
        input: &[u8],
        step: usize,
    ) -> Result<Option<(Vec<u8>, usize, Fields)>, Malformed> {
        let mut decoder = Decoder::new(LIMITS);
        let mut data = Vec::new();
        let mut at = 0;
        for piece in input.chunks(step.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                match decoder.decode(rest)? {
                    Step::Data { range, consumed } => {
                        data.extend_from_slice(&rest[range]);
                        rest = &rest[consumed..];
                        at += consumed;
                    }
                    Step::More => {
                        at += rest.len();
                        rest = &[];
                    }
                    Step::End { consumed } => {
                        return Ok(Some((data, at + consumed, decoder.take_trailers())));
                    }
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn decodes_in_any_pieces() {
        let input = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for step in 1..input.len() {
            let (data, consumed, trailers) = decode_all(input, step).unwrap().unwrap();
            assert_eq!(data, b"hello world");
            assert_eq!(&input[consumed..], b"GET");
            assert_eq!(trailers.get(b"x-sum"), Some(&b"1"[..]));
        }
    }

    #[test]
    fn refuses_what_others_might_read_differently() {
        for bad in [
            &b"g\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n",
            b"1000000000000000\r\n",
            b"5;a=\x00\r\n",
            b"5;a\nb\r\n",
            b"0\r\nbad name: 1\r\n\r\n",
            b"0\r\nno-colon\r\n\r\n",
            b"0\r\nx: 1\n\r\n",
            b" 5\r\nhello\r\n",
        ] {
            assert_eq!(
                decode_all(bad, 64).err(),
                Some(Malformed),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        let mut long = b"5;".to_vec();
        long.resize(2 + EXTENSION_BYTES_MAX + 1, b'x');
        assert_eq!(decode_all(&long, 512).err(), Some(Malformed));
    }

    proptest! {
        #[test]
        fn never_panics(input in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let _ = decode_all(&input, step);
        }

        #[test]
        fn round_trip(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10), step in 1usize..40) {
            let mut wire = Vec::new();
            for piece in &pieces {
                write_size(&mut wire, piece.len());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            write_end(&mut wire, None);
            let (data, consumed, _) = decode_all(&wire, step).unwrap().unwrap();
            prop_assert_eq!(data, pieces.concat());
            prop_assert_eq!(consumed, wire.len());
        }
    }
}
