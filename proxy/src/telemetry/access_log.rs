//! The access log: workers format into buffers of their own, one thread writes.
//!
//! A worker hands its buffer over when it holds 16 KiB or when it is told to flush (once a second and when idle), so
//! a record is on disk within about a second. The queue between them is bounded to 256 buffers: when the disk or the
//! reader of standard output cannot keep up, whole buffers are dropped and their lines counted, and no worker waits.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::record::Record;
use super::whole_lines::WholeLines;
use crate::config::{AccessLogConfig, LogFormat, LogTarget};

/// A worker's buffer goes to the writer at this size.
const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers between workers and writer.
const QUEUE_LENGTH: usize = 256;

/// The process's side of the access log. Workers get theirs from [`AccessLog::worker`].
///
/// Dropping it, and every [`WorkerLog`], ends the writer once all is written; [`AccessLog::close`] waits for that.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Disconnects when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

/// A worker's side: not shared between threads.
#[derive(Debug)]
pub struct WorkerLog {
    format: LogFormat,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    local: RefCell<Local>,
}

#[derive(Debug, Default)]
struct Local {
    clock: Clock,
    buffer: Vec<u8>,
    lines: u32,
}

#[derive(Debug)]
struct Shared {
    reopen: AtomicBool,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    /// Only to make the writer look at `Shared::reopen`.
    Wake,
    /// Answered when all that was queued before is written.
    Flush(Sender<()>),
}

impl AccessLog {
    /// Opens the target (a file is created with mode 0640 and appended to) and starts the writer. `dropped` counts the
    /// lines that were lost, and outlives this log when a reload replaces it.
    pub fn open(config: &AccessLogConfig, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let sink = Sink::open(&config.to)?;
        let shared = Arc::new(Shared {
            reopen: AtomicBool::new(false),
            dropped,
        });
        let (queue, messages) = sync_channel(QUEUE_LENGTH);
        let (alive, ended) = channel();
        let writer = Writer {
            sink,
            lines: WholeLines::default(),
            shared: shared.clone(),
            lost: None,
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                writer.run(messages);
                drop(alive);
            })?;
        Ok(Self {
            format: config.format,
            queue,
            shared,
            ended: Mutex::new(ended),
        })
    }

    /// A worker's own buffer. Make one per worker.
    pub fn worker(&self) -> WorkerLog {
        WorkerLog {
            format: self.format,
            queue: self.queue.clone(),
            shared: self.shared.clone(),
            local: RefCell::default(),
        }
    }

    /// Opens the file anew before the next write (after a log rotation moved it). When that fails, the old file stays
    /// in use and the log says so. Does nothing for standard output and error. Never waits.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // A full queue needs no waking: the writer looks before each buffer.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits until all that workers handed over so far is written, at most `timeout`; true when it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, answer) = channel();
        self.queue.try_send(Message::Flush(done)).is_ok() && answer.recv_timeout(timeout).is_ok()
    }

    /// Ends the log: waits, at most `timeout`, until everything is written. Drop the [`WorkerLog`]s first, which hands
    /// their buffers over; while one lives this waits for the whole time. True when all was written.
    pub fn close(self, timeout: Duration) -> bool {
        let Self { queue, ended, .. } = self;
        drop(queue);
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: the writer's end disconnects.
        ended.recv_timeout(timeout) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }
}

impl WorkerLog {
    /// Writes one record into the buffer. A new buffer is allocated for every 16 KiB handed over, and nothing else.
    pub fn record(&self, record: &Record<'_>) {
        let Ok(mut local) = self.local.try_borrow_mut() else {
            return;
        };
        let local = &mut *local;
        if local.buffer.capacity() == 0 {
            local.buffer.reserve(BUFFER_BYTES + BUFFER_BYTES / 4);
        }
        record.write(self.format, &mut local.clock, &mut local.buffer);
        local.lines += 1;
        if local.buffer.len() >= BUFFER_BYTES {
            self.hand_over(local);
        }
    }

    /// Hands the buffer to the writer, if it holds anything. The worker calls it at least once a second and whenever
    /// it has nothing else to do.
    pub fn flush(&self) {
        if let Ok(mut local) = self.local.try_borrow_mut() {
            self.hand_over(&mut local);
        }
    }

    fn hand_over(&self, local: &mut Local) {
        if local.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut local.lines);
        let buffer = std::mem::take(&mut local.buffer);
        match self.queue.try_send(Message::Lines(buffer)) {
            Ok(()) => {}
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                self.shared.count_dropped(lines);
                if let Message::Lines(mut buffer) = message {
                    buffer.clear();
                    local.buffer = buffer;
                }
            }
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Shared {
    fn count_dropped(&self, lines: u32) {
        self.dropped.fetch_add(lines.into(), Ordering::Relaxed);
    }
}

/// The writer thread.
struct Writer {
    sink: Sink,
    lines: WholeLines,
    shared: Arc<Shared>,
    /// The last write failed, which is said once and not per buffer; so many lines are lost since.
    lost: Option<u64>,
}

impl Writer {
    fn run(mut self, messages: Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            match message {
                Message::Lines(buffer) => self.write(&buffer),
                Message::Wake => {}
                Message::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, buffer: &[u8]) {
        let written = match &mut self.sink {
            Sink::Stream(stream) => self.lines.write(stream, buffer),
            Sink::File(_, file) => self.lines.append(file, buffer),
        };
        match written {
            Ok(()) => {
                if let Some(lost) = self.lost.take() {
                    tracing::warn!(lost, "the access log is written again");
                }
            }
            Err(unwritten) => {
                self.shared.count_dropped(unwritten.lines);
                if self.lost.is_none() {
                    tracing::error!(
                        error = crate::error::why(&unwritten.error),
                        "cannot write the access log; its lines are lost until this ends"
                    );
                }
                *self.lost.get_or_insert(0) += u64::from(unwritten.lines);
            }
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(path, file) = &mut self.sink {
            match open_file(path) {
                Ok(new) => {
                    *file = new;
                    // What was begun in the old file stays there.
                    self.lines = WholeLines::default();
                }
                Err(error) => {
                    tracing::error!(error = crate::error::why(&error), path = %path.display(), "cannot reopen the access log; the old file stays in use");
                }
            }
        }
    }
}

enum Sink {
    /// Standard output or error, without a buffer between.
    Stream(File),
    File(PathBuf, File),
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stdout => Sink::Stream(io::stdout().as_fd().try_clone_to_owned()?.into()),
            LogTarget::Stderr => Sink::Stream(io::stderr().as_fd().try_clone_to_owned()?.into()),
            LogTarget::File(path) => Sink::File(path.clone(), open_file(path)?),
        })
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn open(path: &Path) -> (AccessLog, Arc<AtomicU64>) {
        let dropped = Arc::new(AtomicU64::new(0));
        let config = AccessLogConfig {
            to: LogTarget::File(path.into()),
            format: LogFormat::Text,
        };
        let log = AccessLog::open(&config, dropped.clone()).expect("open");
        (log, dropped)
    }

    #[test]
    fn everything_is_written_at_the_end() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("access.log");
        let (log, dropped) = open(&path);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let worker = log.worker();
                scope.spawn(move || (0..1000).for_each(|_| worker.record(&sample())));
            }
        });
        assert!(log.close(WAIT));
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(
            text.lines().count() as u64 + dropped.load(Ordering::Relaxed),
            3000
        );
        assert!(text.lines().all(|l| l.starts_with("2026-11-23T15:00:00")));
    }

    #[test]
    fn a_flush_writes_what_lies_in_the_buffer() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("access.log");
        let (log, _) = open(&path);
        let worker = log.worker();
        worker.record(&sample());
        worker.flush();
        assert!(log.flush(WAIT));
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_rotated_file_is_left_alone_after_reopen() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("access.log");
        let (log, _) = open(&path);
        let worker = log.worker();
        worker.record(&sample());
        worker.flush();
        assert!(log.flush(WAIT));
        let old = dir.path().join("access.log.1");
        std::fs::rename(&path, &old).expect("rename");
        log.reopen();
        for _ in 0..2 {
            worker.record(&sample());
        }
        drop(worker);
        assert!(log.close(WAIT));
        let lines = |p: &Path| std::fs::read_to_string(p).expect("read").lines().count();
        assert_eq!((lines(&old), lines(&path)), (1, 2));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, messages) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let worker = WorkerLog {
            format: LogFormat::Json,
            queue,
            shared: Arc::new(Shared {
                reopen: AtomicBool::new(false),
                dropped: dropped.clone(),
            }),
            local: RefCell::default(),
        };
        for _ in 0..3 {
            worker.record(&sample());
            worker.record(&sample());
            worker.flush();
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 4);
        assert!(matches!(messages.try_recv(), Ok(Message::Lines(_))));
        worker.flush();
        assert!(messages.try_recv().is_err());
    }

    #[test]
    fn a_directory_cannot_be_a_log() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = AccessLogConfig {
            to: LogTarget::File(dir.path().into()),
            format: LogFormat::Text,
        };
        assert!(AccessLog::open(&config, Arc::default()).is_err());
    }
}
