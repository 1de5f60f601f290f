//! The heads of frames in a connection's bytes (RFC 9113 §4.1).

pub(super) const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const CODE_BYTES: usize = 4;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;

/// What the head of a frame says (RFC 9113 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    /// Bytes behind the head.
    pub(super) len: usize,
    pub(super) stream: u32,
    /// That of a RST_STREAM.
    pub(super) code: Option<u32>,
}

/// Finds where frames begin in bytes that come in any pieces.
pub(super) struct Frames {
    head: [u8; HEAD_BYTES + CODE_BYTES],
    have: usize,
    /// Bytes that are read of this frame.
    want: usize,
    /// Bytes that belong to no frame head.
    skip: usize,
}

impl Frames {
    /// Those that begin after so many bytes.
    pub(super) fn after(skip: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES + CODE_BYTES],
            have: 0,
            want: HEAD_BYTES,
            skip,
        }
    }

    /// Tells `found` of each frame whose head is complete; of a RST_STREAM once its code is.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (self.want - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have < self.want {
                continue;
            }
            let [a, b, c, kind, _, s0, s1, s2, s3, code @ ..] = self.head;
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind == RST_STREAM && len == CODE_BYTES && self.have == HEAD_BYTES {
                self.want = HEAD_BYTES + CODE_BYTES;
                continue;
            }
            let read = self.have - HEAD_BYTES;
            (self.have, self.want, self.skip) = (0, HEAD_BYTES, len - read);
            found(Frame {
                kind,
                len,
                stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
                code: (read > 0).then(|| u32::from_be_bytes(code)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: u8) -> Vec<u8> {
        let mut out = vec![0, 0, len, kind, 0, 0, 0, 0, 1];
        out.extend(std::iter::repeat_n(0xff, usize::from(len)));
        out
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        let expected = [
            (4, 0),
            (1, 20),
            (3, 4),
            (0, 255),
            (3, 5),
            (6, 8),
            (0, 0),
            (3, 4),
        ];
        for (kind, len) in expected {
            bytes.extend(frame(kind, len));
        }
        for piece in [1, 2, 7, 9, 10, 1000] {
            let mut frames = Frames::after(PREFACE_BYTES);
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                frames.pass(part, |frame| {
                    let reset = (frame.kind, frame.len) == (RST_STREAM, CODE_BYTES);
                    assert_eq!(frame.code, reset.then_some(u32::MAX));
                    assert_eq!(frame.stream, 1);
                    found.push((frame.kind, frame.len as u8));
                });
            }
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }
}
