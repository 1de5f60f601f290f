//! Standard output of the verbs that print something and end.

use std::io::{self, ErrorKind, Write};

/// Standard output whose reader may have had enough, as `head` has after ten lines: what is written for nobody is thrown
/// away, and the verb ends as it would have. Other errors stay errors.
#[derive(Debug)]
pub struct Output(io::StdoutLock<'static>);

pub fn stdout() -> Output {
    Output(io::stdout().lock())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}
