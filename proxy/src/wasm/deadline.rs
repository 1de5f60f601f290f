//! Deadlines: a thread that advances wasmtime's epoch every millisecond, but only while filters are being called.
//!
//! A call costs one relaxed load of a flag that rarely changes. While calls come in the thread clears the flag every
//! [`WINDOW`] ticks and the next call sets it again; when nobody did for longer than the longest deadline it parks,
//! so that an idle process sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use wasmtime::Engine;

/// Length of one epoch.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks between two looks at whether calls still come.
const WINDOW: u32 = 64;

/// What callers share with the thread.
pub(super) struct Pulse {
    armed: AtomicBool,
    stop: AtomicBool,
    /// Guests that run until an epoch ends.
    running: AtomicU32,
    /// The longest deadline any instance has, in milliseconds.
    longest_ms: AtomicU64,
    thread: std::sync::OnceLock<Thread>,
}

impl Pulse {
    /// To be called before every call into a guest: makes sure that epochs advance until its deadline.
    #[inline]
    pub(super) fn arm(&self) {
        if !self.armed.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The same for a guest whose deadline is set anew while it runs: epochs advance for as long as the value lives,
    /// however long the kernel keeps the caller off its processor meanwhile.
    pub(super) fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.arm();
        Running(self)
    }

    /// Makes the thread go on for at least `deadline` after the last call.
    pub(super) fn cover(&self, deadline: Duration) {
        self.longest_ms
            .fetch_max(deadline.as_millis() as u64, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        self.armed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn linger(&self) -> Duration {
        // One window more: the flag may have been set at any time of the last one.
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed)) + TICK * WINDOW
    }

    fn run(&self, engine: &Engine) {
        loop {
            while !self.armed.swap(false, Ordering::SeqCst) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::park();
            }
            self.tick(engine);
        }
    }

    /// Advances the epoch until no call came for as long as a call may last.
    fn tick(&self, engine: &Engine) {
        let mut last = Instant::now();
        let mut until = last + self.linger();
        let mut ticks = 0u32;
        while (last < until || self.running.load(Ordering::SeqCst) > 0)
            && !self.stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(TICK);
            // As many epochs as time went by: a thread that was not scheduled makes up for it.
            while last.elapsed() >= TICK {
                last += TICK;
                engine.increment_epoch();
            }
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(WINDOW) && self.armed.swap(false, Ordering::SeqCst) {
                until = last + self.linger();
            }
        }
    }
}

/// A guest runs; see [`Pulse::enter`].
pub(super) struct Running<'a>(&'a Pulse);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The thread; ends when dropped.
pub(super) struct Ticker {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let pulse = Arc::new(Pulse {
            armed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            running: AtomicU32::new(0),
            longest_ms: AtomicU64::new(0),
            thread: std::sync::OnceLock::new(),
        });
        let thread = std::thread::Builder::new()
            .name("filter-epochs".to_owned())
            .spawn({
                let (pulse, engine) = (pulse.clone(), engine.clone());
                move || pulse.run(&engine)
            })?;
        let _ = pulse.thread.set(thread.thread().clone());
        Ok(Self {
            pulse,
            thread: Some(thread),
        })
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The time one call may take, measured so that a worker the kernel took off the processor does not count.
///
/// The first half is waited for by the clock on the wall, which costs nothing; a guest that is still running then is
/// given the second half as processor time of its thread. A guest that spins is thus stopped after at most `deadline`
/// of processor time, and one that was merely not scheduled goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    half: Duration,
    /// Processor time of the thread when the first half was over.
    since: Option<Duration>,
}

impl Budget {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            half: deadline / 2,
            since: None,
        }
    }

    /// Ticks until the first look.
    pub(super) fn ticks(&self) -> u64 {
        ticks(self.half)
    }

    /// Called when the epoch deadline was reached: how many ticks more, or none when the time is up.
    pub(super) fn extend(&mut self) -> Option<u64> {
        let now = processor_time();
        let since = *self.since.get_or_insert(now);
        let used = now.saturating_sub(since);
        (used < self.half).then(|| ticks(self.half - used))
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_micros().div_ceil(TICK.as_micros()) as u64).max(1)
}

/// Processor time the calling thread has used.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_up() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_micros(1500)), 2);
        assert_eq!(ticks(Duration::from_millis(5)), 5);
    }

    #[test]
    fn a_spinning_thread_uses_up_its_budget() {
        let mut budget = Budget::new(Duration::from_millis(10));
        assert_eq!(budget.ticks(), 5);
        assert_eq!(budget.extend(), Some(5));
        let start = processor_time();
        while processor_time() - start < Duration::from_millis(6) {
            std::hint::spin_loop();
        }
        assert_eq!(budget.extend(), None);
    }
}
