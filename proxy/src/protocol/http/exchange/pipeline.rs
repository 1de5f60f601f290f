//! A body on its way through filters: stage after stage, each with what waits before it.
//!
//! It is pulled from its end. Whatever can be done nearest to the end is done first, so that a stage gets a piece only
//! when those behind it have none: what lies between two stages is what one call answered, or one piece. A stage that
//! holds the head back collects before itself, up to its own maximum and a piece. While a stage waits for effects, nothing is
//! done before it and nothing more is read.

use crate::chain::{
    BodyPiece, BodyStage, Chain, ExchangeState, Made, Message, Outcome, Suspension,
};
use crate::error::Reason;
use crate::head::Fields;
use crate::protocol::http::h1::body::{Pulled, Taker};
use crate::protocol::http::suspended::Results;
use crate::wasm::{BodyMode, OverCap, Phase};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What is shown of a passing body at one time, and given to its taker.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// How long filters are called before everything else of the worker has its turn, with whatever the last call takes.
const TURN: Duration = Duration::from_millis(1);

/// Where the body comes from.
pub(super) trait Source {
    /// The next data, given to `take`. Not called again after the end.
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, Reason>>;
    /// It is known that no more data comes.
    fn is_done(&self) -> bool;
    /// The trailers of a body that has ended, once.
    fn trailers(&mut self) -> Option<Fields>;
}

/// Who is asked about pieces, and on whose behalf.
pub(super) struct FilterCalls<'w, 'm> {
    pub(super) chain: &'w Chain,
    pub(super) state: &'w mut ExchangeState,
    pub(super) message: Message<'m>,
    pub(super) phase: Phase,
    /// Performs what a filter waits for.
    pub(super) perform: &'w dyn Fn(Box<Suspension>) -> Effects,
}

/// Effects that run, and the call that waits for them. Dropped early, the call is cancelled.
pub(super) type Effects = Pin<Box<dyn Future<Output = (Box<Suspension>, Results)>>>;

/// Why the body does not go on.
#[derive(Debug)]
pub(super) enum BodyHalt {
    Reason(Reason),
    /// A filter ended it.
    Filter(Box<Outcome>),
    /// It is larger than a filter takes that wants such bodies refused.
    TooLarge,
}

#[derive(Default)]
pub(super) struct Pipeline {
    stages: Vec<Stage>,
    /// What waits before each stage, and at the end what waits to be taken.
    queues: Vec<Queue>,
    trailers: Option<Fields>,
    /// Bytes that came from the source.
    pub(super) taken: u64,
    /// Bytes that went out at the end.
    pub(super) given: u64,
    /// What calls took since others had their turn.
    busy: Duration,
    /// Others of the worker have their turn.
    pause: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

struct Stage {
    is: BodyStage,
    mode: StageMode,
    length: Length,
    waiting: Option<Waiting>,
}

/// A call about the piece that is next.
struct Waiting {
    effects: Effects,
    /// Bytes of the piece.
    count: usize,
    /// Something of the body comes behind it.
    more: bool,
}

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// There is nothing to do before more comes in.
    Needs,
    /// A filter waits; the task is woken.
    Waits,
}

/// What a filter said of a piece.
enum StageAnswer {
    /// What stands in its place; none when it passes as it is.
    Made(Option<Vec<u8>>),
    Waits(Effects),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StageMode {
    /// It collects what it is to be shown; the head waits for it.
    Hold,
    /// It is shown every piece.
    Pieces,
    /// It has had its say, or is passed by.
    Pass,
}

/// What a stage makes of the length of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Same,
    Changed(i64),
    Known(u64),
    Unknown,
}

/// Bytes between two stages.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    at: usize,
    /// Nothing comes behind what is there.
    ended: bool,
}

impl Queue {
    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.at = 0;
        self.bytes.clear();
        // A body that once had a large block should not own it to its end.
        if self.bytes.capacity() > 2 * PIECE_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    /// The piece that is next, and whether it is the last.
    fn piece(&self) -> (&[u8], bool) {
        let waiting = self.waiting();
        match waiting.split_at_checked(PIECE_BYTES_MAX) {
            Some((piece, rest)) => (piece, rest.is_empty() && self.ended),
            None => (waiting, self.ended),
        }
    }

    /// Moves everything, and the end; whether there was any of it.
    fn move_to(&mut self, next: &mut Queue) -> bool {
        let moved = !self.is_empty() || self.ended && !next.ended;
        if next.is_empty() {
            std::mem::swap(&mut self.bytes, &mut next.bytes);
            next.at = self.at;
        } else {
            next.push(self.waiting());
        }
        self.clear();
        next.ended |= self.ended;
        moved
    }
}

impl Pipeline {
    pub(super) fn new(stages: Vec<BodyStage>) -> Self {
        let queues = (0..=stages.len()).map(|_| Queue::default()).collect();
        let stages = stages.into_iter().map(Stage::new).collect();
        Self {
            stages,
            queues,
            trailers: None,
            taken: 0,
            given: 0,
            busy: Duration::ZERO,
            pause: None,
        }
    }

    /// The head said that the body has so many bytes: a filter that does not take as many need not wait for them.
    pub(super) fn announce(
        &mut self,
        length: u64,
        calls: &mut FilterCalls<'_, '_>,
    ) -> Result<(), BodyHalt> {
        for stage in &mut self.stages {
            match stage.is.mode {
                BodyMode::Whole(whole) if length > u64::from(whole.max) => stage.over(calls)?,
                BodyMode::Watch | BodyMode::Skip => {}
                // What comes out of these is not known yet.
                BodyMode::First(_) | BodyMode::Whole(_) | BodyMode::Transform => break,
            }
        }
        Ok(())
    }

    /// No filter holds the head back any more.
    pub(super) fn is_settled(&self) -> bool {
        self.stages
            .iter()
            .all(|stage| stage.mode != StageMode::Hold)
    }

    /// A filter waits for effects.
    pub(super) fn is_waiting(&self) -> bool {
        self.stages.iter().any(|stage| stage.waiting.is_some())
    }

    /// The length of what comes out, when `length` goes in; `Err` when no filter changes it.
    pub(super) fn length(&self, length: Option<u64>) -> Result<Option<u64>, Unchanged> {
        if self.stages.iter().all(|stage| stage.length == Length::Same) {
            return Err(Unchanged);
        }
        Ok(self
            .stages
            .iter()
            .fold(length, |length, stage| match stage.length {
                Length::Same => length,
                Length::Changed(by) => length.and_then(|length| length.checked_add_signed(by)),
                Length::Known(length) => Some(length),
                Length::Unknown => None,
            }))
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// The trailers that came behind the body.
    pub(super) fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// Everything went out.
    pub(super) fn is_done(&self) -> bool {
        self.queues
            .last()
            .is_none_or(|last| last.ended && last.is_empty())
    }

    /// Collects until no filter holds the head back any more.
    pub(super) fn poll_settle(
        &mut self,
        cx: &mut Context<'_>,
        calls: &mut FilterCalls<'_, '_>,
        source: &mut impl Source,
    ) -> Poll<Result<(), BodyHalt>> {
        while !self.is_settled() {
            ready!(self.poll_turn(cx));
            match self.step(cx, calls)? {
                Progress::Done => {}
                Progress::Needs => ready!(self.poll_fill(cx, source))?,
                Progress::Waits => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece of what comes out, given to `take`.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        calls: &mut FilterCalls<'_, '_>,
        source: &mut impl Source,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyHalt>> {
        loop {
            if let Some(last) = self.queues.last_mut() {
                let (piece, _) = last.piece();
                if !piece.is_empty() {
                    let length = piece.len();
                    take(cx, piece);
                    last.consume(length);
                    self.given += length as u64;
                    return Poll::Ready(Ok(Pulled::Data(length)));
                }
            }
            if self.is_done() {
                return Poll::Ready(Ok(Pulled::End));
            }
            ready!(self.poll_turn(cx));
            match self.step(cx, calls)? {
                Progress::Done => {}
                Progress::Needs => ready!(self.poll_fill(cx, source))?,
                Progress::Waits => return Poll::Pending,
            }
        }
    }

    /// Ready unless filters were called for long. A body may have many pieces that are there already, and nothing that
    /// a filter leaves for its taker to wait for.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.busy >= TURN {
            self.busy = Duration::ZERO;
            // The runtime's own, so that sockets and timers are looked at before this goes on.
            self.pause = Some(Box::pin(tokio::task::yield_now()));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<(), BodyHalt>> {
        let Some(first) = self.queues.first_mut() else {
            return Poll::Ready(Ok(()));
        };
        let pulled = ready!(source.poll_pull(cx, &mut |_, data| first.push(data)));
        match pulled.map_err(BodyHalt::Reason)? {
            Pulled::Data(count) => self.taken += count as u64,
            Pulled::End => first.ended = true,
        }
        if first.ended || source.is_done() {
            first.ended = true;
            self.trailers = source.trailers();
        }
        Poll::Ready(Ok(()))
    }

    /// One step of work at the stage nearest to the end that has any.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        calls: &mut FilterCalls<'_, '_>,
    ) -> Result<Progress, BodyHalt> {
        let before = calls.state.filter_time;
        let stepped = self.step_nearest(cx, calls);
        self.busy += calls.state.filter_time.saturating_sub(before);
        stepped
    }

    fn step_nearest(
        &mut self,
        cx: &mut Context<'_>,
        calls: &mut FilterCalls<'_, '_>,
    ) -> Result<Progress, BodyHalt> {
        for (at, stage) in self.stages.iter_mut().enumerate().rev() {
            let Some([input, output]) = self.queues.get_mut(at..at + 2) else {
                continue;
            };
            if output.ended {
                continue;
            }
            match stage.work(cx, input, output, calls)? {
                Progress::Needs => {}
                step => return Ok(step),
            }
        }
        Ok(Progress::Needs)
    }
}

/// The framing stays what it was.
pub(super) struct Unchanged;

impl Stage {
    fn new(is: BodyStage) -> Self {
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
    fn work(
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
    fn over(&mut self, calls: &mut FilterCalls<'_, '_>) -> Result<(), BodyHalt> {
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

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
