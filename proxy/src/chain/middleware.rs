//! Middleware: a component in the place of a filter that is called with the whole request, and calls what is behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::{ConfigPath, FilterConfig, FilterLimits, HandlerLimits, OnError, Problem};
use crate::wasm::Handler;

use super::problem::problem as finding;

/// A component of `wasi:http/middleware` as it was configured. Shared by all workers and by generations in which it is
/// the same.
pub struct Middleware {
    config: Arc<FilterConfig>,
    handler: Arc<Handler>,
    limits: HandlerLimits,
    running: AtomicU32,
}

/// One request in it; ends when dropped.
pub struct Passage(Arc<Middleware>);

impl Middleware {
    /// Keys that mean nothing for a component that is no filter are refused.
    pub fn new(config: &Arc<FilterConfig>, handler: Arc<Handler>) -> Result<Self, Vec<Problem>> {
        let said = [
            (!config.settings.is_null(), "settings"),
            (config.capabilities.names().next().is_some(), "capabilities"),
            (config.limits != FilterLimits::default(), "limits"),
            (config.on_error == OnError::Bypass, "on-error"),
        ];
        let problems: Vec<Problem> = said
            .into_iter()
            .filter(|(said, _)| *said)
            .map(|(_, key)| {
                let message =
                    format!("`{key}` means nothing for middleware, a wasi:http component");
                let help = match key {
                    "limits" => "its limits are those of `handler: {memory: …, deadline: …, cpu: …, instances: …}`",
                    _ => "remove it",
                };
                let at = ConfigPath(format!("{}/{key}", config.at.0));
                finding(at, "middleware", message).help(help)
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            limits: config.handler.clone().unwrap_or_default(),
            config: config.clone(),
            handler,
            running: AtomicU32::new(0),
        })
    }

    /// Whether a configuration and the bytes of its module make the same of it.
    pub fn is_same(&self, config: &FilterConfig, digest: &[u8; 32]) -> bool {
        let own = &self.config;
        own.name == config.name && own.handler == config.handler && self.handler.digest() == digest
    }

    pub fn config(&self) -> &Arc<FilterConfig> {
        &self.config
    }

    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    pub fn limits(&self) -> &HandlerLimits {
        &self.limits
    }

    /// A place for one more request; none when all are taken.
    pub fn enter(self: &Arc<Self>) -> Option<Passage> {
        let max = self.limits.instances;
        let more = |running: u32| (running < max).then_some(running + 1);
        let entered = (self.running).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Passage(self.clone()))
    }
}

impl Passage {
    pub fn middleware(&self) -> &Arc<Middleware> {
        &self.0
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
