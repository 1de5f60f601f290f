//! Connections of one worker on which several exchanges run at once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::registry::ConnectionClass;
use super::registry::EndpointId;
use crate::error::Reason;

/// All of a worker's; clones share them. As many as the exchanges need: one more is dialled when the others are full,
/// and those that lie idle too long are let go.
pub struct SharedConnections<T> {
    all: Rc<RefCell<All<T>>>,
    /// Some connection may be in doubt.
    doubts: Rc<Cell<bool>>,
}

struct All<T> {
    lines: HashMap<EndpointId, Vec<Rc<SharedConnection<T>>>>,
    dials: HashMap<EndpointId, Rc<Dial>>,
    /// Endpoints that were asked and take one exchange at a time.
    single: HashSet<(EndpointId, ConnectionClass)>,
}

/// One connection.
pub struct SharedConnection<T> {
    pub connection: T,
    class: ConnectionClass,
    running: Cell<usize>,
    /// Takes no new exchange.
    retired: Cell<bool>,
    idle_since: Cell<Instant>,
    idle_max: Duration,
    /// Counts what came from the endpoint, for whomever.
    heard: Cell<u64>,
    belief: Cell<Belief>,
    /// Those whose exchanges run, to be woken when the belief fades.
    waiting: RefCell<slab::Slab<Option<Waker>>>,
}

/// How far the endpoint of a connection is believed to be there still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    Alive,
    /// It did not answer in time: nothing new is sent on it.
    Doubted,
    /// And the endpoint speaks on another connection: what waits on this one can be asked again there.
    Stalled,
}

impl<T> SharedConnection<T> {
    /// Something came from the endpoint.
    pub fn hear(&self) {
        self.heard.set(self.heard.get().wrapping_add(1));
    }

    /// Changes whenever something comes.
    pub fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// Those that run go on; nobody else comes.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// Exchanges run on it.
    pub fn is_busy(&self) -> bool {
        self.running.get() > 0
    }

    pub fn is_doubted(&self) -> bool {
        self.belief.get() != Belief::Alive
    }

    /// Something came: whatever was thought of it, the endpoint is there.
    pub fn believe(&self) {
        self.belief.set(Belief::Alive);
    }

    fn disbelieve(&self, belief: Belief) {
        self.belief.set(belief);
        let mut waiting = self.waiting.borrow_mut();
        let wakers = waiting.iter_mut().filter_map(|(_, waker)| waker.take());
        wakers.for_each(Waker::wake);
    }
}

/// The place of one exchange on a connection.
pub struct StreamPermit<T> {
    line: Rc<SharedConnection<T>>,
    key: usize,
}

impl<T> StreamPermit<T> {
    pub fn line(&self) -> &Rc<SharedConnection<T>> {
        &self.line
    }

    /// What is believed of the connection; the task is woken when it gets worse.
    pub fn belief(&self, cx: &mut Context<'_>) -> Belief {
        match &mut self.line.waiting.borrow_mut()[self.key] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
        self.line.belief.get()
    }
}

impl<T> Drop for StreamPermit<T> {
    fn drop(&mut self) {
        let line = &*self.line;
        line.waiting.borrow_mut().remove(self.key);
        line.running.set(line.running.get() - 1);
        line.idle_since.set(Instant::now());
    }
}

/// Who dials when there is no room: one for all.
pub enum DialRight<T> {
    Mine(Dialling<T>),
    /// Somebody does already.
    Theirs(Rc<Dial>),
}

/// A dial in progress, as those who wait for it see it.
pub struct Dial {
    over: Cell<bool>,
    failed: Cell<Option<Reason>>,
    /// When somebody had waited for it in vain.
    given_up: Cell<Option<Instant>>,
    ended: Notify,
}

impl Dial {
    /// Whether that the caller has waited for it in vain, for as long as `patience`, is a failure of its own: those who have
    /// waited at the same time have seen one.
    pub fn give_up(&self, patience: Duration) -> bool {
        let now = Instant::now();
        let before = self.given_up.get();
        let is_new = before.is_none_or(|at| now.duration_since(at) >= patience / 2);
        if is_new {
            self.given_up.set(Some(now));
        }
        is_new
    }

    /// Ready once it is over: with the reason when it failed. Then there is room, or it is somebody else's turn.
    pub async fn ended(&self) -> Option<Reason> {
        while !self.over.get() {
            self.ended.notified().await;
        }
        self.failed.get()
    }
}

/// A dial in progress, as who dials has it. Over when it is dropped.
pub struct Dialling<T> {
    shared: SharedConnections<T>,
    endpoint: EndpointId,
    dial: Rc<Dial>,
}

impl<T> Dialling<T> {
    /// As those who wait for it see it.
    pub fn dial(&self) -> Rc<Dial> {
        self.dial.clone()
    }

    /// Tells those who wait that it came to nothing.
    pub fn failed(self, reason: Reason) {
        self.dial.failed.set(Some(reason));
    }
}

impl<T> Drop for Dialling<T> {
    fn drop(&mut self) {
        self.shared.all.borrow_mut().dials.remove(&self.endpoint);
        self.dial.over.set(true);
        self.dial.ended.notify_waiters();
    }
}

impl<T> SharedConnections<T> {
    pub fn new() -> Self {
        Self {
            all: Rc::new(RefCell::new(All {
                lines: HashMap::new(),
                dials: HashMap::new(),
                single: HashSet::new(),
            })),
            doubts: Rc::default(),
        }
    }

    /// A place on a connection that has room for one more than its running exchanges, as `room` tells.
    pub fn take(
        &self,
        endpoint: EndpointId,
        class: ConnectionClass,
        room: impl Fn(&SharedConnection<T>, usize) -> bool,
    ) -> Option<StreamPermit<T>> {
        self.place(endpoint, class, |line, running| {
            !line.is_doubted() && room(line, running)
        })
    }

    /// The same on a connection that is in doubt, for when there is nothing better.
    pub fn take_doubted(
        &self,
        endpoint: EndpointId,
        class: ConnectionClass,
        room: impl Fn(&SharedConnection<T>, usize) -> bool,
    ) -> Option<StreamPermit<T>> {
        self.place(endpoint, class, room)
    }

    fn place(
        &self,
        endpoint: EndpointId,
        class: ConnectionClass,
        room: impl Fn(&SharedConnection<T>, usize) -> bool,
    ) -> Option<StreamPermit<T>> {
        let mut all = self.all.borrow_mut();
        let lines = all.lines.get_mut(&endpoint)?;
        lines.retain(|line| !line.retired.get());
        let fits =
            |line: &&Rc<SharedConnection<T>>| line.class == class && room(line, line.running.get());
        lines.iter().find(fits).map(Self::permit)
    }

    /// The endpoint did not answer on `line` in time.
    pub fn doubt(&self, line: &SharedConnection<T>) {
        line.disbelieve(Belief::Doubted);
        self.doubts.set(true);
    }

    /// A connection to the endpoint is in doubt.
    pub fn is_doubted(&self, endpoint: EndpointId, class: ConnectionClass) -> bool {
        self.doubts.get() && {
            let all = self.all.borrow();
            let mut lines = all.lines.get(&endpoint).into_iter().flatten();
            lines.any(|line| line.class == class && line.is_doubted())
        }
    }

    /// Something came from the endpoint on one of its connections: those that are in doubt are stalled.
    pub fn heard_from(&self, endpoint: EndpointId, class: ConnectionClass) {
        if !self.doubts.get() {
            return;
        }
        let all = self.all.borrow();
        let mut doubts = false;
        for (&of, lines) in &all.lines {
            for line in lines {
                let same = of == endpoint && line.class == class;
                if same && line.belief.get() == Belief::Doubted {
                    line.disbelieve(Belief::Stalled);
                }
                doubts |= line.is_doubted();
            }
        }
        self.doubts.set(doubts);
    }

    /// Adds a connection that was dialled, with a place on it.
    pub fn open(
        &self,
        endpoint: EndpointId,
        class: ConnectionClass,
        connection: T,
        idle_max: Duration,
    ) -> StreamPermit<T> {
        let line = Rc::new(SharedConnection {
            connection,
            class,
            running: Cell::new(0),
            retired: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            idle_max,
            heard: Cell::new(0),
            belief: Cell::new(Belief::Alive),
            waiting: RefCell::default(),
        });
        let mut all = self.all.borrow_mut();
        all.single.remove(&(endpoint, class));
        all.lines.entry(endpoint).or_default().push(line.clone());
        Self::permit(&line)
    }

    pub fn dial_right(&self, endpoint: EndpointId) -> DialRight<T> {
        let mut all = self.all.borrow_mut();
        if let Some(dial) = all.dials.get(&endpoint) {
            return DialRight::Theirs(dial.clone());
        }
        let dial = Rc::new(Dial {
            over: Cell::new(false),
            failed: Cell::new(None),
            given_up: Cell::new(None),
            ended: Notify::new(),
        });
        all.dials.insert(endpoint, dial.clone());
        DialRight::Mine(Dialling {
            shared: self.clone(),
            endpoint,
            dial,
        })
    }

    /// The endpoint agreed to one exchange at a time: nobody need wait for another's dial.
    pub fn note_single(&self, endpoint: EndpointId, class: ConnectionClass) {
        self.all.borrow_mut().single.insert((endpoint, class));
    }

    pub fn is_single(&self, endpoint: EndpointId, class: ConnectionClass) -> bool {
        self.all.borrow().single.contains(&(endpoint, class))
    }

    /// Lets go of what has been idle for its time, or is retired. What still runs on it ends in peace.
    pub fn sweep(&self, now: Instant) {
        self.all.borrow_mut().lines.retain(|_, lines| {
            lines.retain(|line| {
                let idle = line.running.get() == 0
                    && now.saturating_duration_since(line.idle_since.get()) >= line.idle_max;
                !line.retired.get() && !idle
            });
            !lines.is_empty()
        });
    }

    /// Lets go of the connections to endpoints that `serves` knows no more, as after a reload.
    pub fn retain(&self, serves: impl Fn(EndpointId) -> bool) {
        let mut all = self.all.borrow_mut();
        all.lines.retain(|endpoint, _| serves(*endpoint));
        all.single.retain(|(endpoint, _)| serves(*endpoint));
    }

    fn permit(line: &Rc<SharedConnection<T>>) -> StreamPermit<T> {
        line.running.set(line.running.get() + 1);
        let key = line.waiting.borrow_mut().insert(None);
        StreamPermit {
            line: line.clone(),
            key,
        }
    }
}

impl<T> Clone for SharedConnections<T> {
    fn clone(&self) -> Self {
        Self {
            all: self.all.clone(),
            doubts: self.doubts.clone(),
        }
    }
}

impl<T> Default for SharedConnections<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for SharedConnections<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Registry;

    const A: EndpointId = EndpointId(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_full_or_retired_line_takes_nobody() {
        let (shared, class) = (SharedConnections::new(), Registry::new().connection_class());
        let two = |_: &SharedConnection<u32>, running: usize| running < 2;
        assert!(shared.take(A, class, two).is_none());
        let first = shared.open(A, class, 1, LONG);
        let second = shared.take(A, class, two).unwrap();
        assert!(shared.take(A, class, two).is_none(), "full");
        drop(second);
        let second = shared.take(A, class, two).unwrap();
        assert!(Rc::ptr_eq(first.line(), second.line()));
        drop(second);
        first.line().retire();
        assert!(shared.take(A, class, two).is_none(), "retired");
        let other = Registry::new();
        other.connection_class();
        let _third = shared.open(A, class, 2, LONG);
        assert!(
            shared.take(A, other.connection_class(), two).is_none(),
            "other TLS"
        );
    }

    #[test]
    fn idle_lines_are_let_go() {
        let (shared, class) = (SharedConnections::new(), Registry::new().connection_class());
        let permit = shared.open(A, class, 1, LONG);
        shared.sweep(Instant::now() + LONG * 2);
        let any = |_: &SharedConnection<u32>, _: usize| true;
        assert!(shared.take(A, class, any).is_some(), "busy");
        drop(permit);
        shared.sweep(Instant::now());
        assert!(shared.take(A, class, any).is_some(), "not for long");
        shared.sweep(Instant::now() + LONG * 2);
        assert!(shared.take(A, class, any).is_none());
    }

    #[test]
    fn a_line_in_doubt_is_the_last_that_is_used() {
        let (shared, class) = (SharedConnections::new(), Registry::new().connection_class());
        let any = |_: &SharedConnection<u32>, _: usize| true;
        let first = shared.open(A, class, 1, LONG);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!shared.is_doubted(A, class));
        shared.doubt(first.line());
        assert!(shared.is_doubted(A, class));
        assert!(shared.take(A, class, any).is_none());
        assert!(shared.take_doubted(A, class, any).is_some());
        assert_eq!(first.belief(&mut cx), Belief::Doubted, "nobody else speaks");
        shared.heard_from(EndpointId(2), class);
        assert_eq!(first.belief(&mut cx), Belief::Doubted, "another endpoint");
        shared.heard_from(A, class);
        assert_eq!(first.belief(&mut cx), Belief::Stalled);
        assert!(shared.is_doubted(A, class));
        first.line().believe();
        shared.heard_from(A, class);
        assert_eq!(first.belief(&mut cx), Belief::Alive);
        assert!(shared.take(A, class, any).is_some());
        assert!(!shared.is_doubted(A, class));
    }

    #[tokio::test]
    async fn one_dials_for_all() {
        let shared: SharedConnections<u32> = SharedConnections::new();
        let DialRight::Mine(mine) = shared.dial_right(A) else {
            panic!("nobody dials yet");
        };
        let DialRight::Theirs(theirs) = shared.dial_right(A) else {
            panic!("two dial");
        };
        let waits = theirs.ended();
        let (reason, ()) = tokio::join!(waits, async { mine.failed(Reason::ConnectRefused) });
        assert_eq!(reason, Some(Reason::ConnectRefused));
        assert_eq!(theirs.ended().await, Some(Reason::ConnectRefused));
        // Who gives up leaves the turn to the next.
        let DialRight::Mine(mine) = shared.dial_right(A) else {
            panic!("it is over");
        };
        let DialRight::Theirs(theirs) = shared.dial_right(A) else {
            panic!("two dial");
        };
        drop(mine);
        assert_eq!(theirs.ended().await, None);
        assert!(matches!(shared.dial_right(A), DialRight::Mine(_)));
    }
}
