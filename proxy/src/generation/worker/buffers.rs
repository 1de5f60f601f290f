//! Buffers that are lent, and records that are handed on.

use super::Worker;
use crate::telemetry::{Record, WorkerLog};
use std::time::SystemTime;

/// Output buffers a worker keeps for reuse, and the largest it keeps.
const BUFFERS_MAX: usize = 64;
/// What a new one begins with: room for most heads with what is added to them.
const BUFFER_BYTES: usize = 2048;
const BUFFER_BYTES_MAX: usize = 16 * 1024;

impl Worker {
    /// An empty buffer for a head or for output, most often with an allocation from before.
    pub fn buffer(&self) -> Vec<u8> {
        let kept = self.buffers.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffer.capacity() > 0
            && buffer.capacity() <= BUFFER_BYTES_MAX
            && buffers.len() < BUFFERS_MAX
        {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// `time` for a `Date` field.
    pub fn date(&self, time: SystemTime) -> [u8; 29] {
        self.clock.borrow_mut().at(time)
    }

    pub fn log(&self, record: &Record<'_>) {
        if let Some(log) = &*self.log.borrow() {
            log.record(record);
        }
    }

    pub fn logs(&self) -> bool {
        self.log.borrow().is_some()
    }

    /// A reload may change where records go.
    pub fn set_log(&self, log: Option<WorkerLog>) {
        *self.log.borrow_mut() = log;
    }
}
