//! The phases of bodies and trailers, for one filter and one piece at a time. Which pieces there are, and what waits
//! for which, is the caller's to know.

use super::apply;
use super::facts::{RequestFacts, ResponseFacts};
use super::http::{Chain, Link, Watch};
use super::slot::Answer;
use super::state::{ExchangeState, Outcome};
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::wasm::{
    BodyMode, Fact, Facts, Fault, FaultKind, Kind, Op, Phase, Shown, ShownFields, Verdict,
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
            let mode = match phase {
                Phase::RequestBody => link.slot.plan().request_body,
                _ => link.slot.plan().response_body,
            };
            if part.matched && !part.ended && mode != BodyMode::Skip {
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
        let plan = link.slot.plan();
        let holds = stage.mode.holds_head();
        let mut watch = Watch::start();
        let answer = {
            let mut told = message.facts();
            told.state = part.state;
            told.last = piece.last;
            told.more = piece.more;
            told.set(Fact::Piece, piece.bytes);
            told.show(plan.facts);
            let shown = Shown {
                fields: message.fields().filter(|_| holds),
                which: match message.is_request() {
                    true => &plan.request_fields,
                    false => &plan.response_fields,
                },
            };
            link.slot
                .call(&mut part.own, message.body_phase(), &told, shown)
        };
        watch.lap(&link.slot);
        state.filter_time += watch.total();
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
                    Message::Request { head, .. } if holds => apply::request(
                        &verdict,
                        head,
                        &mut state.route,
                        &link.pools,
                        &mut part.state,
                    ),
                    Message::Response { head, .. } if holds => {
                        apply::response(&verdict, head, &mut part.state);
                    }
                    _ => apply::piece(&verdict, &mut part.state),
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
            Kind::Suspend => match cannot_wait(link, message.body_phase()) {
                Ok(()) => return Made::Same,
                Err(outcome) => outcome,
            },
        };
        part.ended = true;
        Made::End(ends)
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
            let mut watch = Watch::start();
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

/// The last operation of a verdict that says what stands in place of the piece.
fn instead(verdict: &Verdict) -> Made {
    let body = verdict.ops().filter_map(|op| match op {
        Op::Body(body) => Some(body),
        _ => None,
    });
    body.last()
        .map_or(Made::Same, |body| Made::Instead(body.to_vec()))
}

fn cannot_wait(link: &Link, phase: Phase) -> Result<(), Outcome> {
    // What it waits for would never come.
    link.slot.renew();
    let fault_told = Fault::new(FaultKind::Verdict, "it cannot wait in a body");
    match link.slot.failed(phase, &fault_told) {
        Ok(_) => Ok(()),
        Err(kind) => Err(fault(link, kind)),
    }
}

fn fault(link: &Link, kind: FaultKind) -> Outcome {
    Outcome::Fault {
        filter: link.slot.filter().name().clone(),
        kind,
    }
}
