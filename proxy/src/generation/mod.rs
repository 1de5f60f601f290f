//! One immutable snapshot of everything that reload can change, and a worker's view of it.
//!
//! A [`Generation`] is built on the control thread and shared. Each worker makes its own [`Service`]s from it: a
//! listener, its chain with the worker's filter instances, and the worker itself. An exchange holds the `Rc<Service>`
//! it began with to its end; a reload puts a new one into the listener's [`ServiceSlot`].

mod service;
mod worker;

pub use service::{Behind, Service, ServiceSlot};
pub use worker::{Conduct, DrainWindow, Idle, Multiplexed, RequestId, RequestIds, Worker};

use crate::chain::{Filter, Link, Middleware, Slots};
use crate::config::{Config, ListenerConfig};
use crate::head::HeadLimits;
use crate::store::Store;
use crate::tls::ServerTls;
use crate::upstream::Pool;
use std::sync::Arc;

/// Everything a reload replaces, under one number.
pub struct Generation {
    pub number: u64,
    pub config: Arc<Config>,
    /// In the order of `config.pools`.
    pub pools: Vec<Arc<Pool>>,
    /// In the order of `config.filters`.
    pub members: Vec<Member>,
    /// In the order of `config.listeners`.
    pub listeners: Vec<Arc<Listener>>,
}

impl Generation {
    /// Every filter that is configured.
    pub fn filters(&self) -> impl Iterator<Item = &FilterUse> {
        self.members.iter().filter_map(|member| match member {
            Member::Filter(used) => Some(used),
            Member::Middleware(_) => None,
        })
    }

    /// The members of the chain of `listener`, in order.
    pub fn chain(&self, listener: &Listener) -> impl DoubleEndedIterator<Item = &Member> {
        let filters = listener.config.filters.iter();
        filters.filter_map(|&index| self.members.get(index))
    }

    /// The filters of `listener` in order, with a worker's instances.
    pub fn links(&self, listener: &Listener, slots: &Slots) -> Vec<Link> {
        let links = self.chain(listener).filter_map(|member| match member {
            Member::Filter(used) => Some(used.link(slots)),
            Member::Middleware(_) => None,
        });
        links.collect()
    }
}

/// What stands in a chain.
pub enum Member {
    Filter(FilterUse),
    Middleware(Arc<Middleware>),
}

/// A filter with the pools it names, as indices into this generation's, and its store.
pub struct FilterUse {
    pub filter: Arc<Filter>,
    pub pools: Arc<[usize]>,
    pub store: Arc<Store>,
}

impl FilterUse {
    /// With a worker's instance.
    pub fn link(&self, slots: &Slots) -> Link {
        Link {
            slot: slots.slot(&self.filter),
            pools: self.pools.clone(),
        }
    }
}

/// A listener with what was loaded for it.
pub struct Listener {
    pub config: Arc<ListenerConfig>,
    pub tls: Option<Arc<ServerTls>>,
}

impl Listener {
    pub fn head_limits(&self) -> HeadLimits {
        let limits = &self.config.limits;
        HeadLimits {
            bytes: limits.header_bytes,
            fields: limits.header_fields,
            target: limits.target_bytes,
        }
    }
}
