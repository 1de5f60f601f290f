//! The end of the process, in order.

use super::server::Server;
use crate::admin::Readiness;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What is given to the access log to write its last records.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// The signals that end the process.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Server {
    /// Stops accepting and waits for what runs, up to the deadline; a second signal cuts.
    pub async fn drain(self, signals: &mut Signals) {
        let Some(generation) = &self.generation else {
            return self.followers.workers.cut();
        };
        let drain = generation.config.drain.clone();
        self.state.readiness.set(Readiness::Draining);
        tracing::info!(timeout_s = drain.timeout.as_secs(), "draining");
        let wait = async {
            tokio::time::sleep(drain.pre_stop).await;
            self.followers.workers.drain(drain.timeout).await;
        };
        tokio::select! {
            ended = tokio::time::timeout(drain.pre_stop + drain.timeout, wait) => match ended {
                Ok(()) => tracing::info!("drained"),
                Err(_) => tracing::warn!("the drain took too long: what still runs is cut"),
            },
            _ = signals.end() => tracing::warn!("a second signal: what still runs is cut"),
        }
        self.followers.workers.cut();
        if !self.followers.records.close(LAST_RECORDS) {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}
