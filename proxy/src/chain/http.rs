//! The HTTP phases of a chain: in order for requests, reversed for responses.

use bytes::Bytes;

use super::apply;
use super::facts::{LogFacts, RequestFacts, ResponseFacts};
use super::link::{Chain, Link, Stopwatch};
use super::outcome::Outcome;
use super::predicate::Subject;
use super::slot::Answer;
use super::state::{ExchangeState, Part, Reply, Route};
use super::suspension::{Suspender, Suspension};
use crate::head::{RequestHead, ResponseHead};
use crate::wasm::{EffectResult, FaultKind, Kind, Phase, Shown, flags_of};

impl Chain {
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
        self.request_from(0, None, state, facts, head)
    }

    /// Goes on with a request phase that answered [`Outcome::Suspend`]: `results` has one for each effect, in order.
    pub fn resume_request(
        &self,
        state: &mut ExchangeState,
        facts: &RequestFacts<'_>,
        head: &mut RequestHead,
        mut suspension: Suspension,
        results: &[EffectResult],
    ) -> Outcome {
        let at = suspension.at();
        let (Some(link), Some(part)) = (self.links.get(at), state.parts.get_mut(at)) else {
            return Outcome::Continue;
        };
        state.filter_wait += suspension.waited();
        let mut watch = Stopwatch::start();
        let shown = Shown {
            fields: Some(&head.fields),
            which: &link.slot.plan().request_fields,
        };
        let answer = suspension.resume(&mut part.own, part.state, results, shown);
        watch.lap(&link.slot);
        let by = suspension.suspender(link, part);
        match requested(answer, by, part, &mut state.route, head) {
            Some(outcome) => {
                state.filter_time += watch.total();
                outcome
            }
            None => self.request_from(at + 1, Some(watch), state, facts, head),
        }
    }

    /// Asks the filters from number `from` on.
    fn request_from(
        &self,
        from: usize,
        mut watch: Option<Stopwatch>,
        state: &mut ExchangeState,
        facts: &RequestFacts<'_>,
        head: &mut RequestHead,
    ) -> Outcome {
        let mut outcome = Outcome::Continue;
        let all = self.links.iter().zip(&mut state.parts).enumerate();
        for (at, (link, part)) in all.skip(from) {
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
                    outcome = fault(link, kind);
                    break;
                }
            }
            if !plan.wants(Phase::Request) {
                continue;
            }
            let watch = watch.get_or_insert_with(Stopwatch::start);
            let mut told = facts.facts(head);
            told.state = part.state;
            told.show(plan.facts);
            let flags = flags_of(&told);
            let shown = Shown {
                fields: Some(&head.fields),
                which: &plan.request_fields,
            };
            let answer = link.slot.call(&mut part.own, Phase::Request, &told, shown);
            watch.lap(&link.slot);
            let by = Suspender {
                link,
                phase: Phase::Request,
                at,
                serial: link.slot.serial(&part.own),
                flags,
                round: 0,
            };
            if let Some(ended) = requested(answer, by, part, &mut state.route, head) {
                outcome = ended;
                break;
            }
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
        self.response_below(self.links.len(), None, None, state, facts, head)
    }

    /// Goes on with a response phase that answered [`Outcome::Suspend`]: `results` has one for each effect, in order.
    pub fn resume_response(
        &self,
        state: &mut ExchangeState,
        facts: &ResponseFacts<'_>,
        head: &mut ResponseHead,
        mut suspension: Suspension,
        results: &[EffectResult],
    ) -> Outcome {
        let at = suspension.at();
        let (Some(link), Some(part)) = (self.links.get(at), state.parts.get_mut(at)) else {
            return Outcome::Continue;
        };
        state.filter_wait += suspension.waited();
        let mut watch = Stopwatch::start();
        let shown = Shown {
            fields: Some(&head.fields),
            which: &link.slot.plan().response_fields,
        };
        let answer = suspension.resume(&mut part.own, part.state, results, shown);
        watch.lap(&link.slot);
        let mut body = suspension.body.take();
        let by = suspension.suspender(link, part);
        match responded(answer, by, part, head, &mut body) {
            Some(outcome) => {
                state.filter_time += watch.total();
                outcome
            }
            None => self.response_below(at, body, Some(watch), state, facts, head),
        }
    }

    /// Asks the filters below number `below`, the last one first. `body` is that of a reply that took the response's place.
    fn response_below(
        &self,
        below: usize,
        mut body: Option<Bytes>,
        mut watch: Option<Stopwatch>,
        state: &mut ExchangeState,
        facts: &ResponseFacts<'_>,
        head: &mut ResponseHead,
    ) -> Outcome {
        let mut outcome = Outcome::Continue;
        // An exchange that was answered before its request phase has no parts.
        let all = self.links.iter().zip(&mut state.parts).enumerate();
        for (at, (link, part)) in all.take(below).rev() {
            let plan = link.slot.plan();
            if !part.matched || part.ended || !plan.wants(Phase::Response) {
                continue;
            }
            let watch = watch.get_or_insert_with(Stopwatch::start);
            let mut told = facts.facts(head.status);
            told.state = part.state;
            told.show(plan.facts);
            let flags = flags_of(&told);
            let shown = Shown {
                fields: Some(&head.fields),
                which: &plan.response_fields,
            };
            let answer = link.slot.call(&mut part.own, Phase::Response, &told, shown);
            watch.lap(&link.slot);
            let by = Suspender {
                link,
                phase: Phase::Response,
                at,
                serial: link.slot.serial(&part.own),
                flags,
                round: 0,
            };
            if let Some(ended) = responded(answer, by, part, head, &mut body) {
                outcome = ended;
                break;
            }
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
        let mut watch: Option<Stopwatch> = None;
        for (link, part) in self.links.iter().zip(&mut state.parts).rev() {
            let plan = link.slot.plan();
            if !part.matched || !plan.wants(Phase::Log) {
                continue;
            }
            let watch = watch.get_or_insert_with(Stopwatch::start);
            let mut told = facts.facts();
            told.state = part.state;
            told.show(plan.facts);
            let shown = Shown {
                fields: facts.fields,
                which: &plan.response_fields,
            };
            let _ = link.slot.call(&mut part.own, Phase::Log, &told, shown);
            watch.lap(&link.slot);
        }
        if let Some(watch) = watch {
            state.filter_time += watch.total();
        }
    }
}

/// What the answer of one filter to a request means; none: the next filter is asked.
fn requested(
    answer: Result<Answer, FaultKind>,
    by: Suspender<'_>,
    part: &mut Part,
    route: &mut Route,
    head: &mut RequestHead,
) -> Option<Outcome> {
    let outcome = match answer {
        Ok(Answer::Verdict(verdict)) => match verdict.kind {
            Kind::Next => {
                apply::request(&verdict, head, route, &by.link.pools, part);
                by.link.slot.recycle(verdict);
                return None;
            }
            Kind::Reply => Outcome::Reply(apply::reply(&verdict, &mut part.state)),
            Kind::Drop => Outcome::Drop,
            Kind::Reset => Outcome::Reset,
            Kind::Suspend => {
                match Suspension::begin(by, verdict, &mut part.state) {
                    // It has not decided yet.
                    Ok(Ok(suspension)) => return Some(Outcome::Suspend(suspension)),
                    Ok(Err(_)) => return None,
                    Err(kind) => fault(by.link, kind),
                }
            }
        },
        Ok(Answer::Bypassed) => return None,
        Err(kind) => fault(by.link, kind),
    };
    part.ended = true;
    Some(outcome)
}

/// The same for a response, whose `body` a reply replaces.
fn responded(
    answer: Result<Answer, FaultKind>,
    by: Suspender<'_>,
    part: &mut Part,
    head: &mut ResponseHead,
    body: &mut Option<Bytes>,
) -> Option<Outcome> {
    let verdict = match answer {
        Ok(Answer::Verdict(verdict)) => verdict,
        Ok(Answer::Bypassed) => return None,
        Err(kind) => return Some(fault(by.link, kind)),
    };
    match verdict.kind {
        Kind::Next => {
            apply::response(&verdict, head, part);
            by.link.slot.recycle(verdict);
        }
        Kind::Reply => {
            let reply = apply::reply(&verdict, &mut part.state);
            head.status = reply.status;
            head.fields = reply.fields;
            *body = Some(reply.body);
        }
        Kind::Drop => return Some(Outcome::Drop),
        Kind::Reset => return Some(Outcome::Reset),
        Kind::Suspend => match Suspension::begin(by, verdict, &mut part.state) {
            Ok(Ok(mut suspension)) => {
                suspension.body = body.take();
                return Some(Outcome::Suspend(suspension));
            }
            Ok(Err(_)) => {}
            Err(kind) => return Some(fault(by.link, kind)),
        },
    }
    None
}

fn fault(link: &Link, kind: FaultKind) -> Outcome {
    Outcome::Fault {
        filter: link.slot.filter().name().clone(),
        kind,
    }
}
