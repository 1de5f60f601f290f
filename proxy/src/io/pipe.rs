//! Kernel pipes for splice(2), kept by each worker so that a bulk transfer rarely opens one.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

/// Pipes one worker may have open, in use and kept. Over it, transfers are copied instead of spliced.
const OPEN_MAX: usize = 256;
/// Pipes kept for reuse.
const KEPT_MAX: usize = 32;
/// Four times the usual size needs a third less processor time per byte; twice that gains nothing more.
const PIPE_BYTES: usize = 256 * 1024;
/// Below this, splicing costs more calls than copying.
const PIPE_BYTES_MIN: usize = 64 * 1024;
/// More than any pipe takes at once: the pipe's slots are the limit, not its bytes.
const SPLICE_BYTES_MAX: usize = 1 << 20;

/// A worker's pipes. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pipes {
    shelf: Rc<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    empty: RefCell<Vec<Ends>>,
    open: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe on loan, and how many bytes lie in it. Goes back to the shelf when dropped empty, else is closed with what
/// it holds: one session's bytes never reach another.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
    shelf: Rc<Shelf>,
}

impl Pipes {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pipe, or none when the bound is reached or the system refuses: the caller then copies.
    pub fn take(&self) -> Option<Pipe> {
        let kept = self.shelf.empty.borrow_mut().pop();
        let ends = match kept {
            Some(ends) => ends,
            None if self.shelf.open.get() < OPEN_MAX => {
                let ends = open()?;
                self.shelf.open.set(self.shelf.open.get() + 1);
                ends
            }
            None => return None,
        };
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            shelf: self.shelf.clone(),
        })
    }

    /// Pipes open now, lent and kept.
    pub fn open(&self) -> usize {
        self.shelf.open.get()
    }
}

impl Pipe {
    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what `source` has into the pipe, which must be empty: then `WouldBlock` can only mean that the source has
    /// nothing. Zero is the source's end.
    pub fn fill(&mut self, source: impl AsFd) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = move_bytes(source.as_fd(), ends.write.as_fd(), SPLICE_BYTES_MAX)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds to `sink`, as far as it takes it. `WouldBlock` means that the sink is full.
    pub fn empty(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = move_bytes(ends.read.as_fd(), sink.as_fd(), self.held)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else {
            return;
        };
        let mut empty = self.shelf.empty.borrow_mut();
        if self.held == 0 && empty.len() < KEPT_MAX {
            empty.push(ends);
        } else {
            self.shelf.open.set(self.shelf.open.get().saturating_sub(1));
        }
    }
}

/// None when the system refuses, or grants only the tiny pipes it gives a user who has too many.
fn open() -> Option<Ends> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let bytes = fcntl_setpipe_size(&write, PIPE_BYTES)
        .or_else(|_| fcntl_getpipe_size(&write))
        .ok()?;
    (bytes >= PIPE_BYTES_MIN).then_some(Ends { read, write })
}

fn move_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    loop {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(from, None, to, None, length, flags) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_is_used_again_and_a_full_one_is_closed() {
        let pipes = Pipes::new();
        drop(pipes.take().unwrap());
        assert_eq!(pipes.open(), 1);

        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        rustix::io::write(&writer, b"secret").unwrap();
        let mut pipe = pipes.take().unwrap();
        assert_eq!(pipes.open(), 1, "the kept pipe was not used");
        assert_eq!(pipe.fill(&reader).unwrap(), 6);
        drop(pipe);
        assert_eq!(pipes.open(), 0, "a pipe with bytes in it was kept");
    }

    #[test]
    fn bytes_go_through_whole() {
        let (source, source_writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let (sink_reader, sink) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut pipe = Pipes::new().take().unwrap();
        assert_eq!(
            pipe.fill(&source).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );

        rustix::io::write(&source_writer, b"hello").unwrap();
        assert_eq!(pipe.fill(&source).unwrap(), 5);
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.empty(&sink).unwrap(), 5);
        assert_eq!(pipe.held(), 0);
        let mut received = [0; 16];
        assert_eq!(rustix::io::read(&sink_reader, &mut received).unwrap(), 5);
        assert_eq!(&received[..5], b"hello");

        drop(source_writer);
        assert_eq!(pipe.fill(&source).unwrap(), 0);
    }

    #[test]
    fn pipes_are_bounded() {
        let pipes = Pipes::new();
        let lent: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(lent.len(), OPEN_MAX);
        drop(lent);
        assert_eq!(pipes.open(), KEPT_MAX);
    }
}
