//! The phases of bodies and trailers, for one filter and one piece at a time. Which pieces there are, and what waits
//! for which, is the caller's to know.

use super::apply;
use super::facts::{RequestFacts, ResponseFacts};
use super::link::{Chain, Link, Stopwatch};
use super::outcome::Outcome;
use super::slot::Answer;
use super::state::{ExchangeState, Part, Route};
use super::suspension::{Suspender, Suspension};
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::wasm::{
    BodyMode, EffectResult, Fact, Facts, Fault, FaultKind, Kind, Op, Phase, Shown, ShownFields,
    Verdict, flags_of,
};

/// A larger answer is not kept for its allocation.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A filter that is given a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyStage {
    /// Its place in the chain.
    pub filter: usize,
    pub mode: BodyMode,
}

/// What one call shows of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyPiece<'a> {
    pub bytes: &'a [u8],
    /// Nothing follows it.
    pub last: bool,
    /// Something follows that is not shown.
    pub more: bool,
}

/// The message whose body passes, with what filters are told of it.
pub enum Message<'a> {
    Request {
        facts: RequestFacts<'a>,
        head: &'a mut RequestHead,
    },
    /// A response whose head waits for its body.
    Response {
        facts: ResponseFacts<'a>,
        head: &'a mut ResponseHead,
    },
    /// A response whose head was sent.
    Sent {
        facts: ResponseFacts<'a>,
        status: u16,
    },
}

/// What became of a piece.
#[derive(Debug)]
pub enum Made {
    /// It passes as it is.
    Same,
    /// This stands in its place; it may be empty.
    Instead(Vec<u8>),
    /// The filter, or its failure, ends the exchange.
    End(Outcome),
    /// The filter waits for effects; [`Chain::resume_piece`] goes on.
    Wait(Box<Suspension>),
}

impl Message<'_> {
    fn is_request(&self) -> bool {
        matches!(self, Message::Request { .. })
    }

    fn facts(&self) -> Facts<'_> {
        match self {
            Message::Request { facts, head } => facts.facts(head),
            Message::Response { facts, head } => facts.facts(head.status),
            Message::Sent { facts, status } => facts.facts(*status),
        }
    }

    fn fields(&self) -> Option<&Fields> {
        match self {
            Message::Request { head, .. } => Some(&head.fields),
            Message::Response { head, .. } => Some(&head.fields),
            Message::Sent { .. } => None,
        }
    }

    /// The fields of a head that waits for its body.
    fn shown<'s>(&'s self, link: &'s Link, stage: BodyStage) -> Shown<'s> {
        let plan = link.slot.plan();
        Shown {
            fields: self.fields().filter(|_| stage.mode.holds_head()),
            which: match self.is_request() {
                true => &plan.request_fields,
                false => &plan.response_fields,
            },
        }
    }

    fn body_phase(&self) -> Phase {
        match self.is_request() {
            true => Phase::RequestBody,
            false => Phase::ResponseBody,
        }
    }

    fn trailer_phase(&self) -> Phase {
        match self.is_request() {
            true => Phase::RequestTrailers,
            false => Phase::ResponseTrailers,
        }
    }
}

impl Chain {
    /// The filters that take part in a body of this exchange, in the order in which it passes them. Those whose
    /// predicate did not match, or that ended the request, take none.
    pub fn body_stages(&self, state: &ExchangeState, phase: Phase) -> Vec<BodyStage> {
        let mut stages = Vec::new();
        if !self.wants(phase) {
            return stages;
        }
        for (filter, (link, part)) in self.links.iter().zip(&state.parts).enumerate() {
            let plan = link.slot.plan();
            let (mode, skips) = match phase {
                Phase::RequestBody => (plan.request_body, part.skips_request_body),
                _ => (plan.response_body, part.skips_response_body),
            };
            if part.matched && !part.ended && !skips && mode != BodyMode::Skip {
                stages.push(BodyStage { filter, mode });
            }
        }
        if phase == Phase::ResponseBody {
            stages.reverse();
        }
        stages
    }

    /// Shows a filter a piece. When the head waits for it (modes `first` and `whole`), what the filter edits is applied
    /// to the head of `message`.
    pub fn piece(
        &self,
        state: &mut ExchangeState,
        stage: BodyStage,
        message: &mut Message<'_>,
        piece: BodyPiece<'_>,
    ) -> Made {
        let (Some(link), Some(part)) = (
            self.links.get(stage.filter),
            state.parts.get_mut(stage.filter),
        ) else {
            return Made::Same;
        };
        let mut watch = Stopwatch::start();
        let (answer, flags) = {
            let mut told = message.facts();
            told.state = part.state;
            told.last = piece.last;
            told.more = piece.more;
            told.set(Fact::Piece, piece.bytes);
            told.show(link.slot.plan().facts);
            let flags = flags_of(&told);
            let shown = message.shown(link, stage);
            let phase = message.body_phase();
            (link.slot.call(&mut part.own, phase, &told, shown), flags)
        };
        watch.lap(&link.slot);
        state.filter_time += watch.total();
        let by = Suspender {
            link,
            phase: message.body_phase(),
            at: stage.filter,
            serial: link.slot.serial(&part.own),
            flags,
            round: 0,
        };
        made(answer, by, part, &mut state.route, stage, message)
    }

    /// Goes on with a piece that answered [`Made::Wait`]: `results` has one for each effect, in order.
    pub fn resume_piece(
        &self,
        state: &mut ExchangeState,
        stage: BodyStage,
        message: &mut Message<'_>,
        mut suspension: Suspension,
        results: &[EffectResult],
    ) -> Made {
        let (Some(link), Some(part)) = (
            self.links.get(stage.filter),
            state.parts.get_mut(stage.filter),
        ) else {
            return Made::Same;
        };
        state.filter_wait += suspension.waited();
        let mut watch = Stopwatch::start();
        let shown = message.shown(link, stage);
        let answer = suspension.resume(&mut part.own, part.state, results, shown);
        watch.lap(&link.slot);
        state.filter_time += watch.total();
        let by = suspension.suspender(link, part);
        made(answer, by, part, &mut state.route, stage, message)
    }

    /// The body is larger than the filter takes, and its plan wants that to be a fault: what the failure policy makes
    /// of it. `Ok`: the body passes without the filter.
    pub fn body_too_large(&self, stage: BodyStage, phase: Phase) -> Result<(), Box<Outcome>> {
        let Some(link) = self.links.get(stage.filter) else {
            return Ok(());
        };
        let message = match stage.mode {
            BodyMode::Whole(whole) => format!(
                "the body has more than the {} bytes that it takes",
                whole.max
            ),
            _ => "the body is larger than it takes".to_owned(),
        };
        match link
            .slot
            .failed(phase, &Fault::new(FaultKind::Body, message))
        {
            Ok(_) => Ok(()),
            Err(kind) => Err(Box::new(fault(link, kind))),
        }
    }

    /// Shows the trailers of `message` to the filters that want them, which may edit them.
    pub fn trailers(
        &self,
        state: &mut ExchangeState,
        message: &Message<'_>,
        trailers: &mut Fields,
    ) -> Outcome {
        let phase = message.trailer_phase();
        if !self.wants(phase) {
            return Outcome::Continue;
        }
        let count = self.links.len().min(state.parts.len());
        for step in 0..count {
            let at = match message.is_request() {
                true => step,
                false => count - 1 - step,
            };
            let (Some(link), Some(part)) = (self.links.get(at), state.parts.get_mut(at)) else {
                continue;
            };
            let plan = link.slot.plan();
            if !part.matched || part.ended || !plan.wants(phase) {
                continue;
            }
            let mut watch = Stopwatch::start();
            let mut told = message.facts();
            told.state = part.state;
            told.show(plan.facts);
            let shown = Shown {
                fields: Some(trailers),
                which: &ShownFields::All,
            };
            let answer = link.slot.call(&mut part.own, phase, &told, shown);
            watch.lap(&link.slot);
            state.filter_time += watch.total();
            let verdict = match answer {
                Ok(Answer::Verdict(verdict)) => verdict,
                Ok(Answer::Bypassed) => continue,
                Err(kind) => return fault(link, kind),
            };
            match verdict.kind {
                Kind::Next => apply::trailers(&verdict, trailers, &mut part.state),
                Kind::Drop => return Outcome::Drop,
                Kind::Reset => return Outcome::Reset,
                // The rules of the phase allow neither.
                Kind::Reply | Kind::Suspend => {}
            }
            link.slot.recycle(verdict);
        }
        Outcome::Continue
    }
}

/// What the answer to a piece means, applied.
fn made(
    answer: Result<Answer, FaultKind>,
    by: Suspender<'_>,
    part: &mut Part,
    route: &mut Route,
    stage: BodyStage,
    message: &mut Message<'_>,
) -> Made {
    let (link, holds) = (by.link, stage.mode.holds_head());
    let verdict = match answer {
        Ok(Answer::Verdict(verdict)) => verdict,
        Ok(Answer::Bypassed) => return Made::Same,
        Err(kind) => {
            part.ended = true;
            return Made::End(fault(link, kind));
        }
    };
    let ends = match verdict.kind {
        Kind::Next => {
            match message {
                Message::Request { head, .. } if holds => {
                    apply::request(&verdict, head, route, &link.pools, part);
                }
                Message::Response { head, .. } if holds => {
                    apply::response(&verdict, head, part);
                }
                _ => apply::state(&verdict, &mut part.state),
            }
            let made = instead(&verdict);
            if verdict.size() <= SPARE_BYTES_MAX {
                link.slot.recycle(verdict);
            }
            return made;
        }
        Kind::Reply => Outcome::Reply(apply::reply(&verdict, &mut part.state)),
        Kind::Drop => Outcome::Drop,
        Kind::Reset => Outcome::Reset,
        Kind::Suspend => match Suspension::begin(by, verdict, &mut part.state) {
            Ok(Ok(suspension)) => return Made::Wait(suspension),
            Ok(Err(_)) => return Made::Same,
            Err(kind) => fault(link, kind),
        },
    };
    part.ended = true;
    Made::End(ends)
}

/// The last operation of a verdict that says what stands in place of the piece.
fn instead(verdict: &Verdict) -> Made {
    let body = verdict.ops().filter_map(|op| match op {
        Op::Body(body) => Some(body),
        _ => None,
    });
    body.last()
        .map_or(Made::Same, |body| Made::Instead(body.to_vec()))
}

fn fault(link: &Link, kind: FaultKind) -> Outcome {
    Outcome::Fault {
        filter: link.slot.filter().name().clone(),
        kind,
    }
}
