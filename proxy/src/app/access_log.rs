//! Where records go: the access log of the serving generation.

use super::follower::{Follower, LogChange, Next, Refused, Writers};
use crate::config::{AccessLogConfig, ConfigPath, LogTarget, Problem, quoted};
use crate::error::why;
use crate::telemetry::{AccessLog, Metrics};
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// The access log with the configuration it was opened by, if there is one.
type Open = Option<(AccessLogConfig, AccessLog)>;

pub struct Records {
    metrics: Arc<Metrics>,
    open: Open,
    /// That of the next generation, when it is another.
    opened: Option<Open>,
}

impl Records {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            open: None,
            opened: None,
        }
    }

    /// Opens the file anew, for programs that move logs away.
    pub fn reopen(&self) {
        if let Some((_, log)) = &self.open {
            log.reopen();
        }
    }

    /// Writes what waits; false when that takes longer than `time`.
    pub fn close(self, time: Duration) -> bool {
        self.open.is_none_or(|(_, log)| log.close(time))
    }
}

impl Follower for Records {
    fn prepare(&mut self, next: &mut Next) -> Result<(), Refused> {
        let config = &next.generation.config;
        let wanted = config.telemetry.access_log.as_ref();
        if self.open.as_ref().map(|(config, _)| config) == wanted {
            return Ok(());
        }
        let opened = match wanted {
            None => None,
            Some(wanted) => {
                let log = AccessLog::open(wanted, self.metrics.access_log_dropped())
                    .map_err(|error| Refused::Placed(unusable(wanted, &error)))?;
                Some((wanted.clone(), log))
            }
        };
        next.parcels.log = Some(LogChange {
            to: writers(&opened, config.workers),
            back: writers(&self.open, config.workers),
        });
        self.opened = Some(opened);
        Ok(())
    }

    fn undo<'a>(&'a mut self, _: &'a mut Next) -> LocalBoxFuture<'a, ()> {
        self.opened = None;
        Box::pin(std::future::ready(()))
    }

    /// Only now: until then records go where they went.
    fn settle<'a>(&'a mut self, _: &'a Next) -> LocalBoxFuture<'a, ()> {
        if let Some(opened) = self.opened.take() {
            self.open = opened;
        }
        Box::pin(std::future::ready(()))
    }
}

fn writers(open: &Open, workers: usize) -> Writers {
    let (_, log) = open.as_ref()?;
    Some((0..workers).map(|_| log.worker()).collect())
}

fn unusable(config: &AccessLogConfig, error: &std::io::Error) -> Problem {
    let shown = match &config.to {
        LogTarget::File(path) => format!(" {}", quoted(&path.display().to_string())),
        LogTarget::Stdout | LogTarget::Stderr => String::new(),
    };
    Problem {
        at: ConfigPath("/telemetry/access-log/to".to_owned()),
        code: "access-log-unusable",
        message: format!("the access log{shown} cannot be opened: {}", why(error)),
        help: None,
    }
}
