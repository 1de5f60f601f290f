//! Lines into something that may be full for a while: each is written whole or not at all.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};

/// What a failed write has left behind.
#[derive(Debug, Default)]
pub(super) struct WholeLines {
    /// The rest of a line whose beginning was written: it goes out before anything else.
    rest: Vec<u8>,
    /// Bytes of that line that were written.
    begun: u64,
}

/// Not everything was written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub error: io::Error,
    /// Lines that are lost.
    pub lines: u32,
}

impl WholeLines {
    /// Writes `lines`, of which the last has its end. Of a line that does not go out whole the rest is kept, so that the next
    /// one is not glued to it.
    pub fn write(&mut self, out: &mut impl Write, lines: &[u8]) -> Result<(), Unwritten> {
        let (written, outcome) = write_all(out, &self.rest);
        self.rest.drain(..written);
        self.begun += written as u64;
        if let Err(error) = outcome {
            let lines = count(lines);
            return Err(Unwritten { error, lines });
        }
        self.begun = 0;
        let (written, outcome) = write_all(out, lines);
        let Err(error) = outcome else {
            return Ok(());
        };
        let (before, after) = lines.split_at(written);
        let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        let mut lost = after;
        if start < before.len() {
            let end = memchr::memchr(b'\n', after).map_or(after.len(), |end| end + 1);
            self.rest = after[..end].to_vec();
            self.begun = (before.len() - start) as u64;
            lost = &after[end..];
        }
        let lines = count(lost);
        Err(Unwritten { error, lines })
    }

    /// The same for a file that is appended to: the beginning of a line that does not go out whole is taken back.
    pub fn append(&mut self, file: &mut File, lines: &[u8]) -> Result<(), Unwritten> {
        let written = self.write(file, lines);
        if self.rest.is_empty() || !self.take_back(file) {
            return written;
        }
        self.rest = Vec::new();
        self.begun = 0;
        written.map_err(|unwritten| Unwritten {
            lines: unwritten.lines + 1,
            ..unwritten
        })
    }

    /// Cuts the beginning of a line off the file again, if it is the file's end still: others may have appended since.
    fn take_back(&self, file: &mut File) -> bool {
        let end = file.stream_position().ok();
        let length = file.metadata().ok().filter(|found| found.is_file());
        match (end, length.map(|found| found.len())) {
            (Some(end), Some(length)) if end == length && length >= self.begun => {
                file.set_len(length - self.begun).is_ok()
            }
            _ => false,
        }
    }
}

/// How much of `bytes` was written, and why not all.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut at = 0;
    while at < bytes.len() {
        match out.write(&bytes[at..]) {
            Ok(0) => return (at, Err(ErrorKind::WriteZero.into())),
            Ok(written) => at += written.min(bytes.len() - at),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (at, Err(error)),
        }
    }
    (at, Ok(()))
}

fn count(lines: &[u8]) -> u32 {
    let ends = memchr::memchr_iter(b'\n', lines).count();
    u32::try_from(ends).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes so many bytes, and then none.
    struct Disk {
        room: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(7);
            if taken == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.holds.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn a_line_is_whole_or_lost_and_lost_ones_are_counted(
            rooms in proptest::collection::vec(0usize..60, 1..30)
        ) {
            let mut disk = Disk { room: 0, holds: Vec::new() };
            let mut lines = WholeLines::default();
            let (mut number, mut lost) = (0, 0);
            for room in rooms {
                disk.room = room;
                let mut buffer = Vec::new();
                for _ in 0..3 {
                    buffer.extend_from_slice(format!("line {number} of many\n").as_bytes());
                    number += 1;
                }
                if let Err(unwritten) = lines.write(&mut disk, &buffer) {
                    lost += unwritten.lines;
                }
            }
            disk.room = usize::MAX;
            lines.write(&mut disk, b"line 999 of many\n").expect("room");
            let text = String::from_utf8(disk.holds).expect("text");
            let whole = text.lines().filter(|line| line.starts_with("line ") && line.ends_with(" of many"));
            prop_assert_eq!(text.lines().count(), whole.count());
            prop_assert_eq!(text.lines().count() as u32 + lost, number + 1);
        }
    }
}
