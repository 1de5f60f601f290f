//! The HTTP phases of a chain: in order for requests, reversed for responses.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply;
use super::facts::{LogFacts, RequestFacts, ResponseFacts};
use super::predicate::Subject;
use super::slot::{Answer, Slot};
use super::state::{ExchangeState, Outcome, Reply};
use crate::head::{RequestHead, ResponseHead};
use crate::wasm::{Kind, Phase, Shown};

/// One filter of a chain.
#[derive(Clone)]
pub struct Link {
    pub slot: Rc<Slot>,
    /// From [`super::Filter::pool_table`], for this generation.
    pub pools: Arc<[usize]>,
}

/// A listener's filters on one worker, in order for requests.
#[derive(Clone, Default)]
pub struct Chain {
    pub(super) links: Box<[Link]>,
    wanted: [bool; Phase::ALL.len()],
    first_bytes: usize,
}

/// Measures calls: the time between two calls is the next one's, which spares a clock reading each.
pub(super) struct Watch {
    begun: Instant,
    last: Instant,
}

impl Watch {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            last: now,
        }
    }

    pub(super) fn lap(&mut self, slot: &Slot) {
        let now = Instant::now();
        slot.lapped(now - self.last, now);
        self.last = now;
    }

    pub(super) fn total(&self) -> Duration {
        self.last - self.begun
    }
}

impl Chain {
    pub fn new(links: Vec<Link>) -> Self {
        let wanted = Phase::ALL.map(|phase| links.iter().any(|link| link.slot.plan().wants(phase)));
        let first_bytes = links
            .iter()
            .map(|link| link.slot.plan().first_bytes)
            .max()
            .unwrap_or(0);
        Self {
            links: links.into(),
            wanted,
            first_bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Some filter is called in this phase, if its predicate matches: else the caller need not build facts for it.
    #[inline]
    pub fn wants(&self, phase: Phase) -> bool {
        self.wanted[phase as usize]
    }

    /// How many first bytes of a connection to wait for; 0 when nobody asks.
    pub fn first_bytes(&self) -> usize {
        self.first_bytes
    }

    /// The request phase. To be called once per exchange, before the other phases, even when no filter wants the
    /// request: it is here that predicates are evaluated, each against the head as the filters before left it.
    pub fn request(
        &self,
        state: &mut ExchangeState,
        facts: &RequestFacts<'_>,
        head: &mut RequestHead,
    ) -> Outcome {
        if self.links.is_empty() {
            return Outcome::Continue;
        }
        state.begin(self.links.len());
        let mut watch: Option<Watch> = None;
        let mut outcome = Outcome::Continue;
        for (link, part) in self.links.iter().zip(&mut state.parts) {
            let plan = link.slot.plan();
            let subject = Subject {
                head: Some(head),
                client: facts.client,
            };
            match link.slot.matches(Phase::Request, &subject) {
                Ok(true) => part.matched = true,
                Ok(false) => continue,
                Err(kind) => {
                    part.ended = true;
                    outcome = Outcome::Fault {
                        filter: link.slot.filter().name().clone(),
                        kind,
                    };
                    break;
                }
            }
            if !plan.wants(Phase::Request) {
                continue;
            }
            let watch = watch.get_or_insert_with(Watch::start);
            let mut told = facts.facts(head);
            told.state = part.state;
            told.show(plan.facts);
            let shown = Shown {
                fields: Some(&head.fields),
                which: &plan.request_fields,
            };
            let answer = link.slot.call(Phase::Request, &told, shown);
            watch.lap(&link.slot);
            let verdict = match answer {
                Ok(Answer::Verdict(verdict)) => verdict,
                Ok(Answer::Bypassed) => continue,
                Err(kind) => {
                    part.ended = true;
                    outcome = Outcome::Fault {
                        filter: link.slot.filter().name().clone(),
                        kind,
                    };
                    break;
                }
            };
            outcome = match verdict.kind {
                Kind::Next => {
                    apply::request(
                        &verdict,
                        head,
                        &mut state.route,
                        &link.pools,
                        &mut part.state,
                    );
                    link.slot.recycle(verdict);
                    continue;
                }
                Kind::Reply => Outcome::Reply(apply::reply(&verdict, &mut part.state)),
                Kind::Drop => Outcome::Drop,
                Kind::Reset => Outcome::Reset,
                // The slot refuses it here.
                Kind::Suspend => continue,
            };
            part.ended = true;
            break;
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
        outcome
    }

    /// The response phase, for whatever response goes to the client: an upstream's, one the proxy made, or the reply
    /// of a filter, which then passes the filters before that one. `Outcome::Reply` replaces the response; it has
    /// passed the remaining filters already.
    pub fn response(
        &self,
        state: &mut ExchangeState,
        facts: &ResponseFacts<'_>,
        head: &mut ResponseHead,
    ) -> Outcome {
        if !self.wants(Phase::Response) {
            return Outcome::Continue;
        }
        let mut watch: Option<Watch> = None;
        let mut body = None;
        let mut outcome = Outcome::Continue;
        for (link, part) in self.links.iter().zip(&mut state.parts).rev() {
            let plan = link.slot.plan();
            if !part.matched || part.ended || !plan.wants(Phase::Response) {
                continue;
            }
            let watch = watch.get_or_insert_with(Watch::start);
            let mut told = facts.facts(head.status);
            told.state = part.state;
            told.show(plan.facts);
            let shown = Shown {
                fields: Some(&head.fields),
                which: &plan.response_fields,
            };
            let answer = link.slot.call(Phase::Response, &told, shown);
            watch.lap(&link.slot);
            let verdict = match answer {
                Ok(Answer::Verdict(verdict)) => verdict,
                Ok(Answer::Bypassed) => continue,
                Err(kind) => {
                    outcome = Outcome::Fault {
                        filter: link.slot.filter().name().clone(),
                        kind,
                    };
                    break;
                }
            };
            match verdict.kind {
                Kind::Next | Kind::Suspend => apply::response(&verdict, head, &mut part.state),
                Kind::Reply => {
                    let reply = apply::reply(&verdict, &mut part.state);
                    head.status = reply.status;
                    head.fields = reply.fields;
                    body = Some(reply.body);
                }
                Kind::Drop => {
                    outcome = Outcome::Drop;
                    break;
                }
                Kind::Reset => {
                    outcome = Outcome::Reset;
                    break;
                }
            }
            link.slot.recycle(verdict);
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
        match (outcome, body) {
            (Outcome::Continue, Some(body)) => Outcome::Reply(Reply {
                status: head.status,
                fields: std::mem::take(&mut head.fields),
                body,
            }),
            (outcome, _) => outcome,
        }
    }

    /// The end of an exchange, told to every filter that took part. Faults are counted and logged, no more.
    pub fn log(&self, state: &mut ExchangeState, facts: &LogFacts<'_>) {
        if !self.wants(Phase::Log) {
            return;
        }
        let mut watch: Option<Watch> = None;
        for (link, part) in self.links.iter().zip(&state.parts).rev() {
            let plan = link.slot.plan();
            if !part.matched || !plan.wants(Phase::Log) {
                continue;
            }
            let watch = watch.get_or_insert_with(Watch::start);
            let mut told = facts.facts();
            told.state = part.state;
            told.show(plan.facts);
            let shown = Shown {
                fields: facts.fields,
                which: &plan.response_fields,
            };
            let _ = link.slot.call(Phase::Log, &told, shown);
            watch.lap(&link.slot);
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
    }
}
