//! Where guests' log lines go.

use std::sync::Arc;

/// Bytes of one line; the rest is cut.
const LINE_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

type Sink = dyn Fn(&str, Level, &str) + Send + Sync;

/// Takes (filter, level, line). Called on the thread that runs the guest: it must not block.
#[derive(Clone)]
pub struct LogSink(Arc<Sink>);

impl LogSink {
    pub fn new(sink: impl Fn(&str, Level, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Into the proxy's own log, target `filter`.
    pub fn tracing() -> Self {
        Self::new(|filter, level, line| match level {
            Level::Debug => tracing::debug!(target: "filter", filter, "{line}"),
            Level::Info => tracing::info!(target: "filter", filter, "{line}"),
            Level::Warn => tracing::warn!(target: "filter", filter, "{line}"),
            Level::Error => tracing::error!(target: "filter", filter, "{line}"),
        })
    }

    /// Into the proxy's own log, target `handler`; what stands for the filter is the pool.
    pub fn handlers() -> Self {
        Self::new(|pool, level, line| match level {
            Level::Debug => tracing::debug!(target: "handler", pool, "{line}"),
            Level::Info => tracing::info!(target: "handler", pool, "{line}"),
            Level::Warn => tracing::warn!(target: "handler", pool, "{line}"),
            Level::Error => tracing::error!(target: "handler", pool, "{line}"),
        })
    }

    /// Hands on one line: cut to its limit, control characters escaped so that a guest cannot forge lines.
    pub(super) fn write(&self, filter: &str, level: Level, message: &str) {
        let cut = &message[..message.floor_char_boundary(LINE_BYTES_MAX)];
        let cut = cut.trim_end_matches(['\r', '\n']);
        if cut.chars().any(char::is_control) {
            let escaped: String = cut
                .chars()
                .flat_map(|c| {
                    let (plain, escape) = if c.is_control() && c != '\t' {
                        (None, Some(c.escape_default()))
                    } else {
                        (Some(c), None)
                    };
                    plain.into_iter().chain(escape.into_iter().flatten())
                })
                .collect();
            (self.0)(filter, level, &escaped);
        } else {
            (self.0)(filter, level, cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn lines_are_cut_and_escaped() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let lines = lines.clone();
            LogSink::new(move |filter, level, line| {
                lines
                    .lock()
                    .unwrap()
                    .push((filter.to_owned(), level, line.to_owned()));
            })
        };
        sink.write("f", Level::Info, "plain\n");
        sink.write("f", Level::Warn, "two\nlines\x1b[0m");
        sink.write("f", Level::Error, &"é".repeat(LINE_BYTES_MAX));
        let lines = lines.lock().unwrap();
        assert_eq!(lines[0].2, "plain");
        assert_eq!(lines[1].2, "two\\nlines\\u{1b}[0m");
        assert_eq!(lines[2].2.len(), LINE_BYTES_MAX);
    }
}
