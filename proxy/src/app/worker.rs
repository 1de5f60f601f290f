//! A worker: one thread, one current-thread runtime, every listener's sockets, and all that it accepts.

use super::socket_key::SocketKey;
use super::ticks::Ticks;
use crate::chain::Slots;
use crate::generation::{Generation, Listener, Service, ServiceSlot, Worker};
use crate::listen::{self, Seats};
use crate::telemetry::{ListenerMetrics, Metrics, WorkerLog};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

/// What control tells a worker.
pub enum Command {
    /// Serve this generation from now on. `sockets` are those that no earlier generation had. Until it is settled, the one
    /// before may come back, and what only that one has is kept.
    Adopt {
        generation: Arc<Generation>,
        sockets: Vec<(SocketKey, std::net::TcpListener)>,
        seats: HashMap<Arc<str>, Arc<Seats>>,
        /// The access log, when the configuration of it changed.
        log: Option<Option<WorkerLog>>,
        done: oneshot::Sender<()>,
    },
    /// Close what the generation before had and this one has not.
    Settle { done: oneshot::Sender<()> },
    /// Stop accepting, let what runs end; answered when nothing runs any more.
    Drain {
        window: Duration,
        done: oneshot::Sender<()>,
    },
    /// End now, with whatever still runs.
    Cut,
}

/// A worker thread as control sees it.
pub struct Handle {
    pub commands: mpsc::UnboundedSender<Command>,
    pub thread: std::thread::JoinHandle<()>,
}

/// Starts worker number `index`. Fails only when the system gives no thread.
pub fn start(index: usize, metrics: Arc<Metrics>) -> std::io::Result<Handle> {
    let (commands, inbox) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(error = crate::error::why(&error), worker = index, "a worker thread could not start; its share of the connections is not served");
                    return;
                }
            };
            let local = LocalSet::new();
            local.block_on(&runtime, serve(index, inbox, metrics));
            // Dropping the set ends what a cut left running; each exchange still writes its record.
            drop(local);
        })?;
    Ok(Handle { commands, thread })
}

/// What a worker holds of the generation it serves.
struct WorkerState {
    worker: Rc<Worker>,
    metrics: Arc<Metrics>,
    listeners: RefCell<HashMap<SocketKey, Bound>>,
    /// Those that the generation which was adopted last has not.
    leaving: RefCell<HashMap<SocketKey, Bound>>,
    adopted: RefCell<Option<Arc<Generation>>>,
    slots: Slots,
    ticks: Ticks,
    counters: RefCell<HashMap<Arc<str>, Rc<ListenerMetrics>>>,
    running: Rc<std::cell::Cell<usize>>,
    idle: Rc<tokio::sync::Notify>,
}

/// A socket this worker accepts from.
struct Bound {
    slot: Rc<ServiceSlot>,
    /// Ends the accept loop when dropped.
    _stop: oneshot::Sender<()>,
}

async fn serve(index: usize, mut inbox: mpsc::UnboundedReceiver<Command>, metrics: Arc<Metrics>) {
    let post = Rc::new(WorkerState {
        worker: Rc::new(Worker::new(None).counting(metrics.pools())),
        metrics,
        listeners: RefCell::default(),
        leaving: RefCell::default(),
        adopted: RefCell::default(),
        slots: Slots::new(index),
        ticks: Ticks::default(),
        counters: RefCell::default(),
        running: Rc::default(),
        idle: Rc::default(),
    });
    let sweeper = tokio::task::spawn_local({
        let worker = post.worker.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                worker.sweep();
            }
        }
    });
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Adopt {
                generation,
                sockets,
                seats,
                log,
                done,
            } => {
                if let Some(log) = log {
                    post.worker.set_log(log);
                }
                post.adopt(&generation, sockets, &seats);
                let _ = done.send(());
            }
            Command::Settle { done } => {
                post.settle();
                let _ = done.send(());
            }
            Command::Drain { window, done } => {
                post.listeners.borrow_mut().clear();
                post.ticks.stop();
                post.worker.begin_drain(window);
                let post = post.clone();
                tokio::task::spawn_local(async move {
                    while post.running.get() > 0 {
                        post.idle.notified().await;
                    }
                    post.worker.sweep();
                    let _ = done.send(());
                });
            }
            Command::Cut => {
                // Also without a drain before it: the records of what is cut tell why.
                post.worker.begin_drain(Duration::ZERO);
                break;
            }
        }
    }
    sweeper.abort();
}

impl WorkerState {
    /// Makes the generation's services; connections that are open find them at their next exchange.
    fn adopt(
        self: &Rc<Self>,
        generation: &Arc<Generation>,
        sockets: Vec<(SocketKey, std::net::TcpListener)>,
        seats: &HashMap<Arc<str>, Arc<Seats>>,
    ) {
        let mut sockets: HashMap<SocketKey, std::net::TcpListener> = sockets.into_iter().collect();
        let mut bound = self.listeners.borrow_mut();
        bound.extend(self.leaving.borrow_mut().drain());
        // Until all services are made, so that a filter that moves to another listener still finds the instance that
        // hands over to it.
        let _replaced: Vec<_> = bound.values().map(|bound| bound.slot.current()).collect();
        let mut kept = HashMap::with_capacity(bound.len());
        for listener in &generation.listeners {
            let service = self.service(generation, listener);
            for key in SocketKey::all(&listener.config) {
                if let Some(old) = bound.remove(&key) {
                    old.slot.replace(service.clone());
                    kept.insert(key, old);
                } else if let Some(socket) = sockets.remove(&key) {
                    let Some(seats) = seats.get(&listener.config.name) else {
                        continue;
                    };
                    match self.accept(service.clone(), socket, seats.clone()) {
                        Ok(opened) => {
                            kept.insert(key, opened);
                        }
                        Err(error) => {
                            tracing::error!(
                                error = crate::error::why(&error),
                                listener = &*listener.config.name,
                                "a listening socket could not be used"
                            )
                        }
                    }
                }
            }
        }
        *self.leaving.borrow_mut() = std::mem::replace(&mut *bound, kept);
        *self.adopted.borrow_mut() = Some(generation.clone());
        let services = bound.values().map(|bound| bound.slot.current());
        let services: Vec<_> = services
            .flat_map(|service| service.and_behind().collect::<Vec<_>>())
            .collect();
        self.ticks.follow(services.iter());
    }

    /// The generation that was adopted last serves for good.
    fn settle(&self) {
        // Dropping it ends the accept loop.
        self.leaving.borrow_mut().clear();
        let Some(generation) = self.adopted.take() else {
            return;
        };
        self.counters
            .borrow_mut()
            .retain(|name, _| generation.listeners.iter().any(|l| l.config.name == *name));
        self.worker.forget_others(&generation.pools);
    }

    fn service(&self, generation: &Arc<Generation>, listener: &Arc<Listener>) -> Rc<Service> {
        let name = &listener.config.name;
        let metrics = self
            .counters
            .borrow_mut()
            .entry(name.clone())
            .or_insert_with(|| Rc::new(self.metrics.listener(name)))
            .clone();
        Service::new(generation, listener, &self.slots, &metrics, &self.worker)
    }

    fn accept(
        self: &Rc<Self>,
        service: Rc<Service>,
        socket: std::net::TcpListener,
        seats: Arc<Seats>,
    ) -> std::io::Result<Bound> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let name = service.listener.config.name.clone();
        let slot = Rc::new(ServiceSlot::new(service));
        let (stop, stopped) = oneshot::channel::<()>();
        let post = self.clone();
        let serving = slot.clone();
        tokio::task::spawn_local(async move {
            let stopped = async {
                // Dropping the sender is the signal.
                let _ = stopped.await;
            };
            let take = |stream, peer, seat| {
                let (slot, post) = (serving.clone(), post.clone());
                post.running.set(post.running.get() + 1);
                tokio::task::spawn_local(async move {
                    let _running = Leaving(post);
                    listen::serve::serve(slot, stream, peer).await;
                    drop(seat);
                });
            };
            listen::accept(&name, socket, &seats, stopped, take).await;
        });
        Ok(Bound { slot, _stop: stop })
    }
}

/// Counts a connection out when its task ends, however it ends.
struct Leaving(Rc<WorkerState>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        if self.0.running.get() == 0 {
            self.0.idle.notify_waiters();
            self.0.idle.notify_one();
        }
    }
}
