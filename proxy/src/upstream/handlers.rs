//! Endpoints that are components: what was loaded for them, and their places in a pool.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::registry::Lineage;
use super::set::Member;
use crate::config::{EndpointAddress, PoolConfig};
use crate::wasm::Handler;

/// The components of a pool, by the text of their endpoint; empty for a pool of addresses.
#[derive(Debug, Clone, Default)]
pub struct Handlers(Vec<(Arc<str>, Arc<Handler>)>);

impl Handlers {
    /// As many as the pool has endpoints at most.
    pub fn new(loaded: Vec<(Arc<str>, Arc<Handler>)>) -> Self {
        Self(loaded)
    }

    pub(super) fn of(&self, text: &str) -> Option<&Arc<Handler>> {
        let found = self.0.iter().find(|(of, _)| **of == *text);
        found.map(|(_, handler)| handler)
    }

    /// The same components from the same bytes.
    pub(super) fn are_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && (self.0.iter().zip(&other.0))
                .all(|(a, b)| a.0 == b.0 && a.1.digest() == b.1.digest())
    }
}

/// The members of a pool of components, in the order of the configuration. An endpoint of `before` with the same text
/// is taken over; one that is listed twice has both weights.
pub(super) fn members(
    config: &PoolConfig,
    before: &[Member],
    lineage: &Arc<Lineage>,
) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for endpoint in config.endpoints.iter().take(super::set::MEMBERS_MAX) {
        let EndpointAddress::Handler { text, .. } = &endpoint.address else {
            continue;
        };
        if let Some(twin) = members.iter_mut().find(|m| m.endpoint.text == *text) {
            twin.weight = twin.weight.saturating_add(endpoint.weight);
            continue;
        }
        let same = before.iter().find(|m| m.endpoint.text == *text);
        members.push(Member {
            endpoint: match same {
                Some(same) => Arc::clone(&same.endpoint),
                None => Arc::new(Endpoint::handler(&config.name, text, lineage)),
            },
            weight: endpoint.weight,
        });
    }
    members
}
