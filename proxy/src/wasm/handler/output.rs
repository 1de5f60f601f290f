//! What a handler prints, as lines of the proxy's log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::super::log::{Level, LogSink};

/// A line is cut into pieces of so many bytes.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Lines of one request; what is printed beyond is dropped, after a line that says so.
const LINES_MAX: u32 = 256;
/// What a guest may hand over at once.
const WRITE_BYTES_MAX: usize = 16 * 1024;

/// Standard output and standard error of one instance. The last line is written when it is dropped.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Lines>>);

struct Lines {
    log: LogSink,
    /// The pool's name.
    label: Arc<str>,
    begun: Vec<u8>,
    written: u32,
}

impl Output {
    pub(super) fn new(log: LogSink, label: Arc<str>) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            log,
            label,
            begun: Vec::new(),
            written: 0,
        })))
    }

    fn put(&self, bytes: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.put(bytes);
    }
}

impl Lines {
    fn put(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            if self.written > LINES_MAX {
                return;
            }
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            for part in text.chunks(LINE_BYTES_MAX) {
                if self.begun.len() + part.len() > LINE_BYTES_MAX {
                    self.end_line();
                }
                self.begun.extend_from_slice(part);
            }
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.begun);
        match self.written {
            LINES_MAX => self.log.write(
                &self.label,
                Level::Warn,
                "the handler prints more than one request may: the rest is dropped",
            ),
            n if n < LINES_MAX => self.log.write(&self.label, Level::Info, &line),
            _ => {}
        }
        self.written = self.written.saturating_add(1);
        self.begun.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.end_line();
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_becomes_lines_and_has_a_bound() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = {
            let lines = lines.clone();
            LogSink::new(move |label, _, line| {
                lines.lock().unwrap().push(format!("{label}: {line}"))
            })
        };
        let output = Output::new(sink.clone(), "hello".into());
        output.put(b"one\ntw");
        output.put(b"o\nthree");
        drop(output);
        assert_eq!(
            *lines.lock().unwrap(),
            ["hello: one", "hello: two", "hello: three"]
        );
        lines.lock().unwrap().clear();
        let output = Output::new(sink, "hello".into());
        output.put(&b"x\n".repeat(10_000));
        drop(output);
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), LINES_MAX as usize + 1);
        assert!(lines.last().unwrap().contains("the rest is dropped"));
    }
}
