//! The process's own log (not the access log): `tracing` events to standard error.
//!
//! Lines go through a bounded queue to a thread of their own, so that a terminal or pipe that is slow to read never
//! stops a worker. What does not fit is dropped, counted, and reported in the log once there is room.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, SystemTime};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer as FormatWriter;
use tracing_subscriber::fmt::time::FormatTime;

use super::clock::Clock;
use super::escape::push_log_text;
use super::fields::AfterFirstLine;
use super::whole_lines::WholeLines;
use crate::error::why;

/// Lines between the threads that log and the one that writes.
const QUEUE_LENGTH: usize = 4096;
/// A text line that is longer is cut; a JSON line, which would be none any more, is dropped.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What `SLUICEGATE_LOG`, `SLUICEGATE_LOG_FORMAT` and `NO_COLOR` say.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// tracing's filter syntax, such as `info,sluicegate::upstream=debug`; default `info`.
    pub filter: Option<String>,
    pub format: Format,
    pub colour: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// An environment variable of the log with a value it cannot have.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "SLUICEGATE_LOG=\"{value}\" is not a log filter: {why}; write info, warn or info,sluicegate::upstream=debug"
    )]
    Filter { value: String, why: String },
    #[error("SLUICEGATE_LOG_FORMAT=\"{0}\" is neither text nor json")]
    Format(String),
    #[error("cannot start the log thread: {}", why(.0))]
    Thread(#[from] io::Error),
    #[error("a log is set up already")]
    Twice,
}

/// Keeps the log going; dropping it waits (up to 2 s) until what was logged is written. Keep it until the process ends.
#[derive(Debug)]
pub struct LogGuard {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogOptions {
    /// From the environment; colour when standard error is a terminal and `NO_COLOR` is unset or empty.
    pub fn from_env() -> Result<Self, LogError> {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self::parse(
            std::env::var("SLUICEGATE_LOG").ok(),
            std::env::var("SLUICEGATE_LOG_FORMAT").ok(),
            io::stderr().is_terminal() && !no_colour,
        )
    }

    fn parse(
        filter: Option<String>,
        format: Option<String>,
        colour: bool,
    ) -> Result<Self, LogError> {
        let format = match format.as_deref() {
            None | Some("" | "text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(LogError::Format(other.into())),
        };
        Ok(Self {
            filter: filter.filter(|f| !f.trim().is_empty()),
            format,
            colour: colour && format == Format::Text,
        })
    }
}

/// Sets the log of the process up. Call once, first thing, from the thread that keeps the guard.
pub fn init(options: &LogOptions) -> Result<LogGuard, LogError> {
    let (subscriber, guard) = subscriber(options, io::stderr())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(guard)
}

/// The subscriber alone, writing to `sink` from a thread of its own.
pub fn subscriber(
    options: &LogOptions,
    sink: impl Write + Send + 'static,
) -> Result<(Box<dyn tracing::Subscriber + Send + Sync>, LogGuard), LogError> {
    let text = options.filter.as_deref().unwrap_or("info");
    // The h2 crate warns about what clients do, as often as they do it; who wants to read that names it.
    let quiet = if text.contains("h2") { "" } else { "h2=error," };
    let filter = EnvFilter::try_new(format!("{quiet}{text}")).map_err(|why| LogError::Filter {
        value: text.into(),
        why: why.to_string(),
    })?;
    let dropped = Arc::new(AtomicU64::new(0));
    let (queue, messages) = sync_channel(QUEUE_LENGTH);
    let writer = Writer {
        sink,
        lines: WholeLines::default(),
        format: options.format,
        dropped: dropped.clone(),
        reported: 0,
    };
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || writer.run(messages))?;
    let lines = Lines {
        queue: queue.clone(),
        dropped: dropped.clone(),
        format: options.format,
        colour: options.colour,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Timer)
        .with_ansi(options.colour)
        .with_writer(lines);
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match options.format {
        Format::Text => Box::new(builder.fmt_fields(AfterFirstLine).finish()),
        Format::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .finish(),
        ),
    };
    Ok((subscriber, LogGuard { queue, dropped }))
}

impl LogGuard {
    /// Lines lost so far, for the metrics.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }

    /// Waits until what was logged so far is written, at most `timeout`; true when it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, answer) = channel();
        self.queue.try_send(Message::Flush(done)).is_ok() && answer.recv_timeout(timeout).is_ok()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush(FLUSH_TIMEOUT);
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Hands each formatted event to the writer thread; `tracing-subscriber` writes an event with one call.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    format: Format,
    colour: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = Vec::with_capacity(line.len() + 8);
        match self.format {
            Format::Text => push_log_text(&mut out, line, self.colour),
            Format::Json => out.extend_from_slice(line),
        }
        let mut too_long = out.len() > LINE_BYTES_MAX;
        if too_long && self.format == Format::Text {
            out.truncate(LINE_BYTES_MAX);
            out.extend_from_slice(b"...\n");
            too_long = false;
        }
        if too_long || self.queue.try_send(Message::Line(out)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

struct Timer;

impl FormatTime for Timer {
    fn format_time(&self, w: &mut FormatWriter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(24);
        Clock::default().push_rfc3339(&mut out, SystemTime::now());
        w.write_str(std::str::from_utf8(&out).map_err(|_| std::fmt::Error)?)
    }
}

struct Writer<W> {
    sink: W,
    lines: WholeLines,
    format: Format,
    dropped: Arc<AtomicU64>,
    reported: u64,
}

impl<W: Write> Writer<W> {
    /// Ends when the last sender is gone. Write errors are counted: there is no other place left to tell them.
    fn run(mut self, messages: Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Line(line) => self.write(&line),
                Message::Flush(done) => {
                    let _ = self.sink.flush();
                    let _ = done.send(());
                }
            }
            self.report_dropped();
        }
    }

    fn write(&mut self, line: &[u8]) {
        if let Err(unwritten) = self.lines.write(&mut self.sink, line) {
            let lost = u64::from(unwritten.lines);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped == self.reported {
            return;
        }
        let lines = dropped - self.reported;
        let mut out = Vec::new();
        let mut clock = Clock::default();
        let text = format!(
            "{lines} log lines were dropped: they came faster than they could be written, or could not be"
        );
        match self.format {
            Format::Text => {
                clock.push_rfc3339(&mut out, SystemTime::now());
                out.extend_from_slice(b"  WARN ");
                out.extend_from_slice(text.as_bytes());
            }
            Format::Json => {
                out.extend_from_slice(b"{\"timestamp\":\"");
                clock.push_rfc3339(&mut out, SystemTime::now());
                out.extend_from_slice(b"\",\"level\":\"WARN\",\"message\":\"");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
        out.push(b'\n');
        if self.lines.write(&mut self.sink, &out).is_ok() {
            self.reported = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(options: &LogOptions, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let (subscriber, guard) = subscriber(options, sink.clone()).expect("subscriber");
        tracing::subscriber::with_default(subscriber, events);
        assert!(guard.flush(Duration::from_secs(20)));
        let bytes = sink.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn text_without_colour() {
        let text = logged(&LogOptions::default(), || {
            tracing::info!(listener = "web", "ready\nFAKE line\x1b[31m");
            tracing::debug!("not shown");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("Z  INFO "), "{text}");
        assert!(lines[1].starts_with("    FAKE line"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn fields_follow_the_first_line() {
        let log = || {
            tracing::warn!(
                generation = 3,
                why = "asked\nfor",
                "refused\nerror: x\x1b[2J\n  | y"
            );
            tracing::info!(pool = %"web", "plain");
            tracing::info!(only = 1);
        };
        let text = logged(&LogOptions::default(), log);
        let ends: Vec<_> = text
            .lines()
            .map(|line| line.split_once("tests: ").map_or(line, |(_, end)| end))
            .collect();
        assert_eq!(
            ends,
            [
                "refused generation=3 why=\"asked\\nfor\"",
                "    error: x\\x1b[2J",
                "      | y",
                "plain pool=web",
                "only=1",
            ]
        );
        let options = LogOptions {
            colour: true,
            ..LogOptions::default()
        };
        let text = logged(&options, log);
        assert!(
            text.contains("refused \x1b[3mgeneration\x1b[0m"),
            "{text:?}"
        );
        assert!(!text.contains("\x1b[2J"), "{text:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let options = LogOptions::parse(Some("debug".into()), Some("json".into()), true);
        let text = logged(&options.expect("options"), || {
            tracing::debug!(pool = "web", "two\nlines");
        });
        let value: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(value["message"], "two\nlines");
        assert_eq!(value["pool"], "web");
        assert_eq!(value["level"], "DEBUG");
    }

    #[test]
    fn wrong_options_are_refused() {
        assert!(LogOptions::parse(None, Some("xml".into()), false).is_err());
        let bad = LogOptions::parse(Some("info,[".into()), None, false).expect("options");
        assert!(matches!(
            subscriber(&bad, io::sink()),
            Err(LogError::Filter { .. })
        ));
    }

    #[test]
    fn dropped_lines_are_counted_and_reported() {
        let (queue, messages) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut lines = Lines {
            queue,
            dropped: dropped.clone(),
            format: Format::Text,
            colour: false,
        };
        for _ in 0..3 {
            lines.write_all(b"line\n").expect("write");
        }
        drop(lines);
        let sink = Sink::default();
        let writer = Writer {
            sink: sink.clone(),
            format: Format::Text,
            dropped,
            lines: WholeLines::default(),
            reported: 0,
        };
        writer.run(messages);
        let text = String::from_utf8(sink.0.lock().expect("lock").clone()).expect("UTF-8");
        assert!(text.starts_with("line\n"), "{text}");
        assert!(text.contains("2 log lines were dropped"), "{text}");
    }
}
