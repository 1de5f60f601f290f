//! A body on its way through filters: stage after stage, each with what waits before it.
//!
//! It is pulled from its end. Whatever can be done nearest to the end is done first, so that a stage gets a piece only
//! when those behind it have none: what lies between two stages is what one call answered, or one piece. A stage that
//! holds the head back collects before itself, up to its own maximum and a piece. While a stage waits for effects, nothing is
//! done before it and nothing more is read.

mod queue;
mod stage;

use crate::chain::BodyStage;
use crate::error::Reason;
use crate::head::Fields;
use crate::protocol::http::h1::body::{Pulled, Taker};
use crate::wasm::BodyMode;
use queue::Queue;
pub(super) use stage::{BodyHalt, Effects, FilterCalls};
use stage::{Length, Progress, Stage, StageMode};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
