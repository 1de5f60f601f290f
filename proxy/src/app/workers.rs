//! The worker threads, as control has them.

use super::follower::{Follower, Next, Refused, Writers};
use super::socket_key::Opened;
use super::worker::{self, Command};
use crate::generation::Generation;
use crate::listen::Seats;
use crate::telemetry::Metrics;
use futures_util::future::LocalBoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

pub struct Workers {
    handles: Vec<worker::Handle>,
    /// Some have been told to adopt the next generation.
    told: bool,
}

impl Workers {
    /// Starts `count` threads. Fails only when the system gives none.
    pub fn start(count: usize, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let start = |index| worker::start(index, metrics.clone());
        Ok(Self {
            handles: (0..count).map(start).collect::<Result<_, _>>()?,
            told: false,
        })
    }

    /// Has every worker adopt `generation`, and waits until all have.
    async fn adopt(
        &self,
        generation: &Arc<Generation>,
        mut sockets: Vec<Opened>,
        seats: &HashMap<Arc<str>, Arc<Seats>>,
        log: Option<Writers>,
    ) -> Result<(), Refused> {
        let mut logs = log;
        let mut acknowledged = Vec::with_capacity(self.handles.len());
        sockets.resize_with(self.handles.len(), Vec::new);
        for (worker, sockets) in self.handles.iter().zip(sockets) {
            let (done, ack) = oneshot::channel();
            let log = logs.as_mut().map(|writers| writers.as_mut()?.pop());
            let adopt = Command::Adopt {
                generation: generation.clone(),
                sockets,
                seats: seats.clone(),
                log,
                done,
            };
            // One that has ended drops what it is sent, and with it its promise to answer.
            let _ = worker.commands.send(adopt);
            acknowledged.push(ack);
        }
        let mut outcome = Ok(());
        for ack in acknowledged {
            if ack.await.is_err() {
                let ended = anyhow::anyhow!("a worker thread has ended; the log says why");
                outcome = Err(Refused::System(ended));
            }
        }
        outcome
    }

    /// Has every worker close what only other generations have than the one it adopted last.
    async fn close_others(&self) {
        let mut closed = Vec::with_capacity(self.handles.len());
        for worker in &self.handles {
            let (done, ack) = oneshot::channel();
            let _ = worker.commands.send(Command::Settle { done });
            closed.push(ack);
        }
        for ack in closed {
            let _ = ack.await;
        }
    }

    /// Has what runs end within `window`; ready when nothing runs any more.
    pub async fn drain(&self, window: Duration) {
        let mut done = Vec::with_capacity(self.handles.len());
        for worker in &self.handles {
            let (finished, ended) = oneshot::channel();
            let drain = Command::Drain {
                window,
                done: finished,
            };
            if worker.commands.send(drain).is_ok() {
                done.push(ended);
            }
        }
        for ended in done {
            let _ = ended.await;
        }
    }

    /// Ends the threads with whatever still runs.
    pub fn cut(self) {
        for worker in &self.handles {
            let _ = worker.commands.send(Command::Cut);
        }
        for worker in self.handles {
            if worker.thread.join().is_err() {
                tracing::error!(
                    "a worker thread ended by a mistake of its own, a panic; please report it"
                );
            }
        }
    }
}

impl Follower for Workers {
    fn commit<'a>(&'a mut self, next: &'a mut Next) -> LocalBoxFuture<'a, Result<(), Refused>> {
        self.told = true;
        let sockets = std::mem::take(&mut next.parcels.sockets);
        let log = next.parcels.log.as_mut().map(|change| change.to.take());
        Box::pin(async move {
            let seats = &next.parcels.seats;
            self.adopt(&next.generation, sockets, seats, log).await
        })
    }

    /// Those that have adopted the next generation go back, and close the sockets that only it has.
    fn undo<'a>(&'a mut self, next: &'a mut Next) -> LocalBoxFuture<'a, ()> {
        let told = std::mem::take(&mut self.told);
        Box::pin(async move {
            let Some(present) = next.present.clone().filter(|_| told) else {
                return;
            };
            let log = next.parcels.log.as_mut().map(|change| change.back.take());
            // A worker that has ended was why; the others go on.
            let seats = &next.parcels.seats;
            let _ = self.adopt(&present, Vec::new(), seats, log).await;
            self.close_others().await;
        })
    }

    /// The sockets that are gone are closed when this is ready, so that another reload may open them anew.
    fn settle<'a>(&'a mut self, _: &'a Next) -> LocalBoxFuture<'a, ()> {
        self.told = false;
        Box::pin(self.close_others())
    }
}
