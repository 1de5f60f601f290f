//! What differs from one generation to the next.

use crate::config::{self, ConfigPath, ListenerConfig};
use crate::generation::{Generation, Listener, Member};
use crate::tls::ServerTls;
use std::sync::Arc;

/// What differs from the generation before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub listeners: usize,
    pub filters: usize,
    pub pools: usize,
    /// The sections of the configuration beside these.
    pub sections: Vec<&'static str>,
}

impl Changes {
    pub(super) fn between(before: &Generation, after: &Generation) -> Self {
        Self {
            listeners: changed(&before.listeners, &after.listeners, |a, b| {
                same_listener((before, a), (after, b))
            }),
            filters: changed(&before.members, &after.members, |a, b| match (a, b) {
                (Member::Filter(a), Member::Filter(b)) => Arc::ptr_eq(&a.filter, &b.filter),
                (Member::Middleware(a), Member::Middleware(b)) => Arc::ptr_eq(a, b),
                _ => false,
            }),
            pools: changed(&before.pools, &after.pools, |a, b| {
                a.config == b.config && a.connection_class() == b.connection_class()
            }),
            sections: changed_sections(&before.config, &after.config),
        }
    }
}

/// The sections that are no lists of objects; those that no reload may change are not among them.
fn changed_sections(before: &config::Config, after: &config::Config) -> Vec<&'static str> {
    [
        ("telemetry", before.telemetry != after.telemetry),
        ("drain", before.drain != after.drain),
        ("modules", before.modules != after.modules),
    ]
    .into_iter()
    .filter_map(|(name, has_changed)| has_changed.then_some(name))
    .collect()
}

/// Pools and filters are compared by name: their places in the lists change when others come and go.
fn same_listener(a: (&Generation, &Listener), b: (&Generation, &Listener)) -> bool {
    let pool = |(generation, listener): (&Generation, &Listener)| {
        let index = listener.config.pool?;
        Some(generation.config.pools.get(index)?.name.clone())
    };
    let filters = |(generation, listener): (&Generation, &Listener)| -> Vec<Option<Arc<str>>> {
        let names = listener.config.filters.iter();
        names
            .map(|&index| Some(generation.config.filters.get(index)?.name.clone()))
            .collect()
    };
    let rest = |listener: &Listener| ListenerConfig {
        pool: None,
        filters: Vec::new(),
        at: ConfigPath::default(),
        ..(*listener.config).clone()
    };
    pool(a) == pool(b)
        && filters(a) == filters(b)
        && rest(a.1) == rest(b.1)
        && same_tls(a.1.tls.as_deref(), b.1.tls.as_deref())
}

/// Items that were added, removed or replaced.
fn changed<T>(before: &[T], after: &[T], same: impl Fn(&T, &T) -> bool) -> usize {
    let kept = after
        .iter()
        .filter(|b| before.iter().any(|a| same(a, b)))
        .count();
    before.len().max(after.len()) - kept
}

pub(super) fn same_tls(a: Option<&ServerTls>, b: Option<&ServerTls>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.files() == b.files(),
        _ => false,
    }
}
