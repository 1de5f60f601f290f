//! A listener as a worker serves it.

use super::{FilterUse, Generation, Listener, Member, Worker};
use crate::chain::{Chain, Middleware, Slots};
use crate::store::Handle;
use crate::telemetry::ListenerMetrics;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A listener as one worker serves it in one generation; or what is behind middleware of its chain.
pub struct Service {
    pub generation: Arc<Generation>,
    pub listener: Arc<Listener>,
    pub chain: Chain,
    /// The stores of the chain's filters, in the same order.
    pub stores: Box<[Handle]>,
    /// What takes a request that the chain lets pass; none: a pool.
    pub behind: Option<Behind>,
    pub metrics: Rc<ListenerMetrics>,
    pub worker: Rc<Worker>,
}

/// Middleware, and what it asks: the rest of the chain, and a pool.
pub struct Behind {
    pub middleware: Arc<Middleware>,
    pub service: Rc<Service>,
}

impl Service {
    /// The service of `listener` with its chain cut at each middleware: the filters before it, and behind it a service
    /// with those that follow.
    pub fn new(
        generation: &Arc<Generation>,
        listener: &Arc<Listener>,
        slots: &Slots,
        metrics: &Rc<ListenerMetrics>,
        worker: &Rc<Worker>,
    ) -> Rc<Self> {
        let service = |mut filters: Vec<&FilterUse>, behind| {
            filters.reverse();
            let stores = filters.iter().map(|used| worker.stores.handle(&used.store));
            let stores = stores.collect();
            let links = filters.iter().map(|used| used.link(slots)).collect();
            Rc::new(Self {
                generation: generation.clone(),
                listener: listener.clone(),
                chain: Chain::new(links),
                stores,
                behind,
                metrics: metrics.clone(),
                worker: worker.clone(),
            })
        };
        let (mut filters, mut behind) = (Vec::new(), None);
        for member in generation.chain(listener).rev() {
            match member {
                Member::Filter(used) => filters.push(used),
                Member::Middleware(middleware) => {
                    let service = service(std::mem::take(&mut filters), behind.take());
                    behind = Some(Behind {
                        middleware: middleware.clone(),
                        service,
                    });
                }
            }
        }
        service(filters, behind)
    }

    /// The service and those behind it.
    pub fn and_behind(self: &Rc<Self>) -> impl Iterator<Item = Rc<Self>> {
        std::iter::successors(Some(self.clone()), |service| {
            service.behind.as_ref().map(|behind| behind.service.clone())
        })
    }
}

/// Where a listener's connections find the service of the day.
pub struct ServiceSlot(RefCell<Rc<Service>>);

impl ServiceSlot {
    pub fn new(service: Rc<Service>) -> Self {
        Self(RefCell::new(service))
    }

    pub fn current(&self) -> Rc<Service> {
        self.0.borrow().clone()
    }

    pub fn replace(&self, service: Rc<Service>) {
        *self.0.borrow_mut() = service;
    }
}
