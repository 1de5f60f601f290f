//! One stage of a pipeline: a filter, and what it is shown.

use super::queue::Queue;
use crate::chain::{
    BodyPiece, BodyStage, Chain, ExchangeState, Made, Message, Outcome, Suspension,
};
use crate::error::Reason;
use crate::protocol::http::suspended::Results;
use crate::wasm::{BodyMode, OverCap, Phase};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Who is asked about pieces, and on whose behalf.
pub(in crate::protocol::http::exchange) struct FilterCalls<'w, 'm> {
    pub(in crate::protocol::http::exchange) chain: &'w Chain,
    pub(in crate::protocol::http::exchange) state: &'w mut ExchangeState,
    pub(in crate::protocol::http::exchange) message: Message<'m>,
    pub(in crate::protocol::http::exchange) phase: Phase,
    /// Performs what a filter waits for.
    pub(in crate::protocol::http::exchange) perform: &'w dyn Fn(Box<Suspension>) -> Effects,
}

/// Effects that run, and the call that waits for them. Dropped early, the call is cancelled.
pub(in crate::protocol::http::exchange) type Effects =
    Pin<Box<dyn Future<Output = (Box<Suspension>, Results)>>>;

/// Why the body does not go on.
#[derive(Debug)]
pub(in crate::protocol::http::exchange) enum BodyHalt {
    Reason(Reason),
    /// A filter ended it.
    Filter(Box<Outcome>),
    /// It is larger than a filter takes that wants such bodies refused.
    TooLarge,
}

pub(super) struct Stage {
    pub(super) is: BodyStage,
    pub(super) mode: StageMode,
    pub(super) length: Length,
    pub(super) waiting: Option<Waiting>,
}

/// A call about the piece that is next.
pub(super) struct Waiting {
    pub(super) effects: Effects,
    /// Bytes of the piece.
    pub(super) count: usize,
    /// Something of the body comes behind it.
    pub(super) more: bool,
}

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// There is nothing to do before more comes in.
    Needs,
    /// A filter waits; the task is woken.
    Waits,
}

/// What a filter said of a piece.
pub(super) enum StageAnswer {
    /// What stands in its place; none when it passes as it is.
    Made(Option<Vec<u8>>),
    Waits(Effects),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StageMode {
    /// It collects what it is to be shown; the head waits for it.
    Hold,
    /// It is shown every piece.
    Pieces,
    /// It has had its say, or is passed by.
    Pass,
}

/// What a stage makes of the length of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Same,
    Changed(i64),
    Known(u64),
    Unknown,
}

impl Stage {
    pub(super) fn new(is: BodyStage) -> Self {
        let (mode, length) = match is.mode {
            BodyMode::First(_) | BodyMode::Whole(_) => (StageMode::Hold, Length::Same),
            BodyMode::Watch => (StageMode::Pieces, Length::Same),
            BodyMode::Transform => (StageMode::Pieces, Length::Unknown),
            BodyMode::Skip => (StageMode::Pass, Length::Same),
        };
        Self {
            is,
            mode,
            length,
            waiting: None,
        }
    }

    /// Takes from `input` and gives to `output`.
    pub(super) fn work(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Queue,
        output: &mut Queue,
        calls: &mut FilterCalls<'_, '_>,
    ) -> Result<Progress, BodyHalt> {
        if let Some(waiting) = &mut self.waiting {
            let Poll::Ready((suspension, results)) = waiting.effects.as_mut().poll(cx) else {
                return Ok(Progress::Waits);
            };
            let (count, more) = (waiting.count, waiting.more);
            self.waiting = None;
            let answer = calls.resume(self.is, *suspension, &results)?;
            return Ok(self.answered(answer, count, more, input, output));
        }
        match (self.mode, self.is.mode) {
            (StageMode::Pass, _) => Ok(match input.move_to(output) {
                true => Progress::Done,
                false => Progress::Needs,
            }),
            (StageMode::Pieces, _) => {
                let (bytes, last) = input.piece();
                if bytes.is_empty() && !last {
                    return Ok(Progress::Needs);
                }
                let piece = BodyPiece {
                    bytes,
                    last,
                    more: false,
                };
                let count = bytes.len();
                let answer = calls.ask(self.is, piece)?;
                Ok(self.answered(answer, count, !last, input, output))
            }
            (StageMode::Hold, BodyMode::Whole(whole)) => {
                let waiting = input.waiting().len();
                if waiting as u64 > u64::from(whole.max) {
                    self.over(calls)?;
                    return Ok(Progress::Done);
                }
                if !input.ended {
                    return Ok(Progress::Needs);
                }
                self.show(waiting, input, output, calls)
            }
            (StageMode::Hold, mode) => {
                let max = match mode {
                    BodyMode::First(max) => max as usize,
                    _ => 0,
                };
                // One byte more tells whether something follows.
                let waiting = input.waiting().len();
                if waiting <= max && !input.ended {
                    return Ok(Progress::Needs);
                }
                self.show(waiting.min(max), input, output, calls)
            }
        }
    }

    /// Shows the first `count` bytes, for which the head has waited.
    fn show(
        &mut self,
        count: usize,
        input: &mut Queue,
        output: &mut Queue,
        calls: &mut FilterCalls<'_, '_>,
    ) -> Result<Progress, BodyHalt> {
        let waiting = input.waiting();
        let more = waiting.len() > count || !input.ended;
        let piece = BodyPiece {
            bytes: waiting.get(..count).unwrap_or(waiting),
            last: !more,
            more,
        };
        let answer = calls.ask(self.is, piece)?;
        Ok(self.answered(answer, count, more, input, output))
    }

    /// Carries out what the filter answered about the first `count` bytes of `input`, or waits until it does.
    fn answered(
        &mut self,
        answer: StageAnswer,
        count: usize,
        more: bool,
        input: &mut Queue,
        output: &mut Queue,
    ) -> Progress {
        let made = match answer {
            StageAnswer::Made(made) => made,
            StageAnswer::Waits(effects) => {
                self.waiting = Some(Waiting {
                    effects,
                    count,
                    more,
                });
                return Progress::Done;
            }
        };
        match self.mode {
            StageMode::Hold => self.release(made, count, more, input, output),
            _ => {
                match made {
                    Some(made) if output.is_empty() => (output.bytes, output.at) = (made, 0),
                    Some(made) => output.push(&made),
                    None => output.push(input.waiting().get(..count).unwrap_or_default()),
                }
                input.consume(count);
                output.ended |= !more;
            }
        }
        Progress::Done
    }

    /// Lets go of what was held.
    fn release(
        &mut self,
        made: Option<Vec<u8>>,
        count: usize,
        more: bool,
        input: &mut Queue,
        output: &mut Queue,
    ) {
        self.mode = StageMode::Pass;
        let length = made.as_ref().map_or(count, Vec::len);
        if !more {
            self.length = Length::Known(length as u64);
        } else if made.is_some() {
            self.length = Length::Changed(length as i64 - count as i64);
        }
        if let Some(made) = made {
            input.consume(count);
            output.bytes = made;
            output.at = 0;
        }
        input.move_to(output);
    }

    /// The body is larger than the filter takes.
    pub(super) fn over(&mut self, calls: &mut FilterCalls<'_, '_>) -> Result<(), BodyHalt> {
        match self.is.mode {
            BodyMode::Whole(whole) if whole.over == OverCap::Refuse => {
                return Err(BodyHalt::TooLarge);
            }
            BodyMode::Whole(whole) if whole.over == OverCap::Fail => calls
                .chain
                .body_too_large(self.is, calls.phase)
                .map_err(BodyHalt::Filter)?,
            _ => {}
        }
        self.mode = StageMode::Pass;
        Ok(())
    }
}

impl FilterCalls<'_, '_> {
    fn ask(&mut self, stage: BodyStage, piece: BodyPiece<'_>) -> Result<StageAnswer, BodyHalt> {
        let made = self
            .chain
            .piece(self.state, stage, &mut self.message, piece);
        self.answered(made)
    }

    fn resume(
        &mut self,
        stage: BodyStage,
        suspension: Suspension,
        results: &Results,
    ) -> Result<StageAnswer, BodyHalt> {
        let made =
            self.chain
                .resume_piece(self.state, stage, &mut self.message, suspension, results);
        self.answered(made)
    }

    fn answered(&self, made: Made) -> Result<StageAnswer, BodyHalt> {
        match made {
            Made::Same => Ok(StageAnswer::Made(None)),
            Made::Instead(bytes) => Ok(StageAnswer::Made(Some(bytes))),
            Made::End(outcome) => Err(BodyHalt::Filter(Box::new(outcome))),
            Made::Wait(suspension) => Ok(StageAnswer::Waits((self.perform)(suspension))),
        }
    }
}
