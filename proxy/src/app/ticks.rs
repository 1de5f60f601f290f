//! The ticks that one worker gives: a task for each filter of its chains that wants some and that elected this worker.

use crate::chain::{ExchangeState, Slot};
use crate::connection::Connection;
use crate::generation::Service;
use crate::protocol::http::without_request::perform_without_request;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Filters being ticked. Dropping it ends all.
#[derive(Default)]
pub struct Ticks(RefCell<Vec<Ticking>>);

/// Where a filter is to be found: its pools and its store are those of a service.
#[derive(Clone)]
struct Place {
    service: Rc<Service>,
    /// In the service's chain.
    at: usize,
}

struct Ticking {
    slot: Rc<Slot>,
    /// That of the present generation.
    place: Rc<RefCell<Place>>,
    task: JoinHandle<()>,
}

impl Ticks {
    /// These are the worker's services from now on. A filter that stays keeps its rhythm; one that went, or was
    /// replaced, is ticked no more.
    pub fn follow<'a>(&self, services: impl Iterator<Item = &'a Rc<Service>>) {
        let mut before = std::mem::take(&mut *self.0.borrow_mut());
        let mut now: Vec<Ticking> = Vec::new();
        for service in services {
            for (at, link) in service.chain.links().iter().enumerate() {
                let slot = &link.slot;
                let Some(ms) = slot.tick_ms() else { continue };
                let is_same = |ticking: &Ticking| Rc::ptr_eq(&ticking.slot, slot);
                if now.iter().any(is_same) {
                    continue;
                }
                let place = Place {
                    service: service.clone(),
                    at,
                };
                now.push(match before.iter().position(is_same) {
                    Some(known) => {
                        let ticking = before.swap_remove(known);
                        ticking.place.replace(place);
                        ticking
                    }
                    None => Ticking::start(slot.clone(), place, Duration::from_millis(ms.into())),
                });
            }
        }
        *self.0.borrow_mut() = now;
    }

    pub fn stop(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Ticking {
    fn start(slot: Rc<Slot>, place: Place, every: Duration) -> Self {
        let place = Rc::new(RefCell::new(place));
        let present = place.clone();
        let task = tokio::task::spawn_local(async move {
            // The first one at once: what it fetches is wanted from the beginning, and reloads cannot put it off.
            let mut interval = interval_at(Instant::now(), every);
            // A worker that was busy, or a tick that waited, gives one tick late, not several at once.
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                interval.tick().await;
                let place = present.borrow().clone();
                tick(&place).await;
            }
        });
        Self { slot, place, task }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One tick, to the end of what it waits for.
async fn tick(place: &Place) {
    let chain = &place.service.chain;
    let mut state = ExchangeState::default();
    let mut waits = chain.tick(&mut state, place.at);
    if waits.is_none() {
        return;
    }
    // Nobody's: effects are on behalf of a connection.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let listener = place.service.listener.config.name.clone();
    let connection = Rc::new(Connection::new(listener, nowhere, nowhere));
    while let Some(suspension) = waits {
        let results = perform_without_request(&place.service, &connection, &suspension).await;
        waits = chain.resume_tick(&mut state, *suspension, &results);
    }
}
