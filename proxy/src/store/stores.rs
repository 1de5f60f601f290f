//! Stores as they are opened, and as a worker uses them.

use super::memory::Memory;
use super::redis::{Line, Redis};
use super::{StoreAnswer, StoreError, StoreOp};
use crate::config::{RedisConfig, StoreConfig};
use crate::telemetry::StoreSample;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak as RcWeak};
use std::sync::Arc;

/// The store of one namespace, shared by all workers and by generations that open it alike.
pub struct Store {
    namespace: Arc<str>,
    config: StoreConfig,
    kind: Kind,
}

enum Kind {
    Memory(Memory),
    Redis(Redis),
}

impl Store {
    /// The store of `namespace`: that of the generation before when its configuration is the same, else a new one, which
    /// begins empty when it is in memory. Connects nowhere.
    pub fn open(namespace: &str, config: &StoreConfig, before: Option<&Arc<Store>>) -> Arc<Self> {
        let same = before.filter(|s| &*s.namespace == namespace && s.config == *config);
        same.map_or_else(|| Arc::new(Self::new(namespace, config)), Arc::clone)
    }

    fn new(namespace: &str, config: &StoreConfig) -> Self {
        let kind = match config {
            StoreConfig::Memory { bytes } => Kind::Memory(Memory::new(*bytes)),
            StoreConfig::Redis(_) => Kind::Redis(Redis::new(namespace)),
        };
        Self {
            namespace: namespace.into(),
            config: config.clone(),
            kind,
        }
    }

    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// What the metrics tell of it.
    pub fn sample(&self) -> StoreSample {
        match &self.kind {
            Kind::Memory(memory) => memory.sample().told(true),
            Kind::Redis(redis) => redis.sample().told(false),
        }
    }
}

/// One worker's connections to Redis: one for each server, database and user, however many filters use it.
#[derive(Default)]
pub struct Connections(RefCell<HashMap<RedisConfig, RcWeak<Line>>>);

impl Connections {
    /// This worker's way to `store`. A connection is made with the first operation and ends with the last handle.
    pub fn handle(&self, store: &Arc<Store>) -> Handle {
        let line = match &store.config {
            StoreConfig::Memory { .. } => None,
            StoreConfig::Redis(config) => Some(self.line(config)),
        };
        Handle {
            store: store.clone(),
            line,
        }
    }

    fn line(&self, config: &RedisConfig) -> Rc<Line> {
        let mut lines = self.0.borrow_mut();
        if let Some(line) = lines.get(config).and_then(RcWeak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Rc::new(Line::new(config.clone()));
        lines.insert(config.clone(), Rc::downgrade(&line));
        line
    }
}

/// A store as one worker uses it.
#[derive(Clone)]
pub struct Handle {
    store: Arc<Store>,
    line: Option<Rc<Line>>,
}

impl Handle {
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Carries `op` out without waiting; none when it needs [`Handle::run`].
    pub fn at_once(&self, op: &StoreOp<'_>) -> Option<Result<StoreAnswer, StoreError>> {
        match &self.store.kind {
            Kind::Memory(memory) => Some(memory.run(op)),
            Kind::Redis(_) => None,
        }
    }

    /// Carries `op` out. When the future is dropped, it may have been carried out or not.
    pub async fn run(&self, op: &StoreOp<'_>) -> Result<StoreAnswer, StoreError> {
        match (&self.store.kind, &self.line) {
            (Kind::Memory(memory), _) => memory.run(op),
            (Kind::Redis(redis), Some(line)) => redis.run(line, op).await,
            (Kind::Redis(_), None) => Err(StoreError::Unavailable("not connected".into())),
        }
    }
}
