//! One worker's use of a filter: its instance, and what happens when that faults.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, Client};
use super::counters::{Shard, VerdictKind};
use super::cpu::CpuBudget;
use super::filter::Filter;
use super::own::PrivateInstance;
use super::plan::CheckedPlan;
use super::predicate::{Subject, TooSlow};
use super::seats::Seated;
use crate::config::{Isolation, OnError};
use crate::wasm::{
    BadVerdict, Fact, Facts, Fault, FaultKind, Instance, Kind, Phase, Shown, Verdict,
};

/// How long a worker makes no instance of a filter itself after it failed to: each try may take as long as a call.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Lines that a head may have had, and bytes it may take, once a verdict is applied. Listeners take no longer heads from
/// the network than these, and what is between them and the heads of users is for filters to add.
const LINES_MAX: usize = 4 * 1024;
const HEAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A worker's instance of a filter. One per worker and filter, shared by its chains.
pub struct Slot {
    filter: Arc<Filter>,
    worker: usize,
    /// Exchanges have instances of their own: between calls there is none here.
    is_isolated: bool,
    /// None after a fault until one can be had.
    instance: RefCell<Option<Seated>>,
    /// Its number, so that a suspended call knows whether it is still the one that it waits in.
    serial: Cell<u64>,
    /// The number given last.
    serials: Cell<u64>,
    /// Suspended calls.
    suspended: Cell<u32>,
    /// No instance could be made: this worker makes none before then.
    retry_at: Cell<Option<Instant>>,
    /// The block of an earlier verdict, for its allocation.
    spare: Cell<Vec<u8>>,
    /// None: no limit.
    cpu: Option<CpuBudget>,
    backoff: Backoff,
    /// A call was made whose time is not counted yet.
    called: Cell<bool>,
}

/// Whom a call is for.
#[derive(Clone, Copy, Default)]
struct About<'a> {
    client: Option<&'a [u8]>,
    request: Option<&'a [u8]>,
}

/// What one call came to, when it did not fail or the policy is to go on.
pub(super) enum Answer {
    Verdict(Verdict),
    /// A fault, with policy `bypass`.
    Bypassed,
}

impl Slot {
    /// Takes an instance for worker number `worker`. When there is none, a later call tries again.
    pub fn new(filter: Arc<Filter>, worker: usize) -> Rc<Self> {
        let limits = &filter.config().limits;
        let slot = Self {
            is_isolated: filter.config().isolation == Isolation::Request,
            cpu: limits.cpu.map(|rate| CpuBudget::new(rate, Instant::now())),
            backoff: Backoff::new(limits.faults),
            called: Cell::new(false),
            filter,
            worker,
            instance: RefCell::new(None),
            serial: Cell::new(0),
            serials: Cell::new(0),
            suspended: Cell::new(0),
            retry_at: Cell::new(None),
            spare: Cell::default(),
        };
        if !slot.is_isolated {
            slot.replace();
        }
        Rc::new(slot)
    }

    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    #[inline]
    pub(super) fn plan(&self) -> &CheckedPlan {
        self.filter.plan()
    }

    pub(super) fn shard(&self) -> &Shard {
        self.filter.shard(self.worker)
    }

    /// The last call took `wall`, up to `now`. Nothing was taken when the filter was not called.
    pub(super) fn lapped(&self, wall: Duration, now: Instant) {
        if self.called.replace(false) {
            self.shard().call(wall);
            if let Some(cpu) = &self.cpu {
                cpu.charge(wall, now);
            }
        }
    }

    /// Calls the filter and checks what it answers, unless it is to be left alone. `own` is the exchange's.
    /// [`Slot::lapped`] is to follow.
    pub(super) fn call(
        &self,
        own: &mut PrivateInstance,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
    ) -> Result<Answer, FaultKind> {
        if self.is_isolated {
            return self.with_own(own, || self.call_present(phase, facts, shown));
        }
        self.call_present(phase, facts, shown)
    }

    /// Does `work` with the exchange's instance in the place of the worker's.
    fn with_own<T>(&self, own: &mut PrivateInstance, work: impl FnOnce() -> T) -> T {
        let own = own.get();
        let shared = self.serial.replace(own.serial);
        std::mem::swap(&mut *self.instance.borrow_mut(), &mut own.instance);
        let done = work();
        std::mem::swap(&mut *self.instance.borrow_mut(), &mut own.instance);
        own.serial = self.serial.replace(shared);
        done
    }

    fn call_present(
        &self,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
    ) -> Result<Answer, FaultKind> {
        if let Some(fault) = self.withheld() {
            return self.failed(phase, &fault);
        }
        self.begin();
        let mut answer = self.spare.take();
        let called = self.invoke(phase, facts, shown, &mut answer);
        let about = About {
            client: facts.value(Fact::ClientAddress),
            request: facts.value(Fact::RequestId),
        };
        self.settled(phase, called.map(|()| answer), shown, about)
    }

    /// A call is made, whose time is to be counted.
    fn begin(&self) {
        self.called.set(true);
        if let Some(cpu) = &self.cpu {
            cpu.begin();
        }
    }

    /// Calls the filter with the results of what a call suspended for, and checks what it answers like the call itself.
    /// `serial` is the number of the instance that waits for them. [`Slot::lapped`] is to follow.
    pub(super) fn resume(
        &self,
        own: &mut PrivateInstance,
        phase: Phase,
        serial: u64,
        block: &[u8],
        shown: Shown<'_>,
    ) -> Result<Answer, FaultKind> {
        if self.is_isolated {
            return self.with_own(own, || self.resume_present(phase, serial, block, shown));
        }
        self.resume_present(phase, serial, block, shown)
    }

    fn resume_present(
        &self,
        phase: Phase,
        serial: u64,
        block: &[u8],
        shown: Shown<'_>,
    ) -> Result<Answer, FaultKind> {
        let mut answer = self.spare.take();
        let called = match self.instance.borrow_mut().as_mut() {
            Some(instance) if serial == self.serial.get() => {
                self.begin();
                instance.resume_into(block, &mut answer)
            }
            // The one there is has done nothing wrong.
            _ => {
                self.spare.set(answer);
                let why = "its instance failed, or was replaced, while the call was suspended";
                return self.failed(phase, &Fault::new(FaultKind::Instance, why));
            }
        };
        self.settled(phase, called.map(|()| answer), shown, About::default())
    }

    /// Tells the filter that nobody waits for what a call suspended for, so that it lets go of what it kept.
    pub(super) fn cancel(&self, phase: Phase, serial: u64, block: &[u8]) {
        let began = Instant::now();
        let mut ignored = Vec::new();
        let called = match self.instance.try_borrow_mut().as_deref_mut() {
            Ok(Some(instance)) if serial == self.serial.get() => {
                self.begin();
                instance.resume_into(block, &mut ignored)
            }
            // With the instance went what it kept.
            _ => return,
        };
        let now = Instant::now();
        self.lapped(now - began, now);
        if let Err(fault) = called {
            self.renew();
            // There is no exchange that it could end.
            let _ = self.failed(phase, &fault);
        }
    }

    /// The number of the instance that an exchange with `own` uses.
    pub(super) fn serial(&self, own: &PrivateInstance) -> u64 {
        own.serial().unwrap_or(self.serial.get())
    }

    /// Counts one more suspended call, if that may be.
    pub(super) fn seat(&self) -> bool {
        let free = self.suspended.get() < self.filter.config().limits.suspends;
        if free {
            self.suspended.set(self.suspended.get() + 1);
        }
        free
    }

    pub(super) fn unseat(&self) {
        self.suspended.set(self.suspended.get().saturating_sub(1));
    }

    /// Checks what a call answered. `about` is what it was for, where that is known.
    fn settled(
        &self,
        phase: Phase,
        called: Result<Vec<u8>, Fault>,
        shown: Shown<'_>,
        about: About<'_>,
    ) -> Result<Answer, FaultKind> {
        let called = called.and_then(|block| {
            match Verdict::read(block, self.plan().rules(phase)).and_then(|v| has_room(v, shown)) {
                Ok(verdict)
                    if verdict.kind == Kind::Suspend && !self.filter.module().can_resume() =>
                {
                    Err(Fault::new(
                        FaultKind::Verdict,
                        "it suspends, and does not export `resume`",
                    ))
                }
                Ok(verdict) => {
                    self.shard().verdict(kind(&verdict));
                    Ok(verdict)
                }
                Err(bad) => Err(Fault::new(FaultKind::Verdict, bad.to_string())),
            }
        });
        match called {
            Ok(verdict) => {
                self.backoff.well();
                Ok(Answer::Verdict(verdict))
            }
            Err(fault) => {
                self.broken(about.client, &fault);
                self.failed_for(about.request, phase, &fault)
            }
        }
    }

    /// Why the filter is not called now, if it is not.
    fn withheld(&self) -> Option<Fault> {
        if self.backoff.is_on(Instant::now) {
            let message = "is skipped for a while because it failed for every client";
            return Some(Fault::new(FaultKind::Backoff, message));
        }
        let cpu = self.cpu.as_ref()?;
        cpu.is_spent(Instant::now).then(|| {
            let message = format!(
                "has used its processor time: `limits.cpu` gives it {} ms a second",
                cpu.rate().as_millis()
            );
            Fault::new(FaultKind::Cpu, message)
        })
    }

    /// Lets go of the instance that faulted and takes another one, unless the filter is to be left alone first.
    fn broken(&self, client: Option<&[u8]>, fault: &Fault) {
        // That there is no instance may be the doing of one client, and fails for all.
        let left_alone = if fault.kind == FaultKind::Instance {
            None
        } else {
            self.backoff.fault(Client::of(client), Instant::now())
        };
        self.let_go();
        match left_alone {
            // An exchange may not need another.
            None if self.is_isolated => {}
            None => self.replace(),
            Some(length) => self.filter.suspended_by(self.worker, length, fault),
        }
    }

    /// Whether the exchange is one for the filter. A predicate that takes too long to evaluate is a fault like those of
    /// calls; with policy `bypass` the exchange is none for it.
    pub(super) fn matches(&self, phase: Phase, subject: &Subject<'_>) -> Result<bool, FaultKind> {
        match self.plan().predicate.matches(subject) {
            Ok(matches) => Ok(matches),
            Err(TooSlow) => {
                let fault = Fault::new(
                    FaultKind::Deadline,
                    "the predicate of its plan takes too long",
                );
                self.failed(phase, &fault).map(|_| false)
            }
        }
    }

    /// Counts and tells a fault, and says what the policy makes of it.
    pub(super) fn failed(&self, phase: Phase, fault: &Fault) -> Result<Answer, FaultKind> {
        self.failed_for(None, phase, fault)
    }

    /// The same with the id of the request, by which the access log has it.
    fn failed_for(
        &self,
        request: Option<&[u8]>,
        phase: Phase,
        fault: &Fault,
    ) -> Result<Answer, FaultKind> {
        self.shard().fault(fault.kind);
        if fault.kind != FaultKind::Backoff {
            self.filter.warn(phase.as_str(), fault, request);
        }
        match self.filter.config().on_error {
            OnError::Fail => Err(fault.kind),
            OnError::Bypass => Ok(Answer::Bypassed),
        }
    }

    /// Gives the block of a verdict that was carried out back, for the next one.
    pub(super) fn recycle(&self, verdict: Verdict) {
        self.spare.set(verdict.into_block());
    }

    fn invoke(
        &self,
        phase: Phase,
        facts: &Facts<'_>,
        shown: Shown<'_>,
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if let Some(instance) = &mut *self.instance.borrow_mut() {
            return instance.call_into(phase, facts, shown, answer);
        }
        self.replace();
        match &mut *self.instance.borrow_mut() {
            Some(instance) => instance.call_into(phase, facts, shown, answer),
            None => Err(Fault::new(FaultKind::Instance, self.filter.no_instance())),
        }
    }

    /// This worker is the one that ticks the filter: a filter's ticks come from one worker of the process.
    pub(super) fn is_elected(&self) -> bool {
        self.worker == self.filter.elected()
    }

    /// Calls `f` with the instance, when there is one.
    pub(super) fn with_instance<T>(&self, f: impl FnOnce(&mut Instance) -> T) -> Option<T> {
        self.instance.borrow_mut().as_deref_mut().map(f)
    }

    /// Another instance in the place of one that failed outside of any exchange.
    pub(super) fn renew(&self) {
        self.let_go();
        if !self.is_isolated {
            self.replace();
        }
    }

    fn let_go(&self) {
        let faulted = self.instance.borrow_mut().take();
        if let Some(faulted) = faulted {
            self.filter.discard(faulted);
        }
    }

    /// Takes another instance. At once after a fault, so that the next exchange finds it ready: from the stock, else
    /// made here when that takes no longer than a call may, else there is none until the stock has one. Exchanges that
    /// have their own would empty the stock again and again: they are the other way around.
    fn replace(&self) {
        let makes_first = self.is_isolated && self.filter.is_quick();
        let mut taken = match makes_first {
            true => None,
            false => self.filter.stocked(),
        };
        let may_make = self.retry_at.get().is_none_or(|at| Instant::now() >= at);
        if taken.is_none() && may_make && self.filter.is_quick() {
            match self.filter.made_quickly() {
                Ok(instance) => taken = instance,
                Err(fault) => {
                    self.filter.warn("configure", &fault, None);
                    self.retry_at.set(Some(Instant::now() + RETRY_AFTER));
                }
            }
        }
        if taken.is_none() && makes_first {
            taken = self.filter.stocked();
        }
        let serial = self.serials.get() + 1;
        self.serials.set(serial);
        self.serial.set(serial);
        *self.instance.borrow_mut() = taken;
    }
}

/// Refuses edits after which the head would be larger than any may be: one after the other, filters could make it so.
fn has_room(verdict: Verdict, shown: Shown<'_>) -> Result<Verdict, BadVerdict> {
    if verdict.kind != Kind::Next || verdict.is_plain_next() {
        return Ok(verdict);
    }
    let (lines, bytes) = shown.fields.map_or((0, 0), |fields| fields.extent());
    if lines + verdict.operations() > LINES_MAX || bytes + verdict.size() > HEAD_BYTES_MAX {
        return Err(BadVerdict::HeadTooLarge);
    }
    Ok(verdict)
}

fn kind(verdict: &Verdict) -> VerdictKind {
    match verdict.kind {
        Kind::Next if verdict.is_plain_next() => VerdictKind::Next,
        Kind::Next => VerdictKind::Edit,
        Kind::Reply => VerdictKind::Reply,
        Kind::Drop => VerdictKind::Drop,
        Kind::Reset => VerdictKind::Reset,
        Kind::Suspend => VerdictKind::Suspend,
    }
}
