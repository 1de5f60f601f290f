//! Bodies and trailers going through a filter, in the way that its plan chose.

use super::message::{Fields, Shown};
use super::{Answer, Exchange, TestResponse, block};
use crate::filter::{Exports, Filter};
use crate::plan::{BodyMode, Interest, OverCap, Phase};
use crate::view::{RequestBody, RequestTrailers, ResponseBody, ResponseTrailers};

/// What became of a body.
#[derive(Debug, Clone)]
pub struct TestBody {
    answers: Vec<Answer>,
    bytes: Vec<u8>,
    refused: bool,
}

impl TestBody {
    /// What goes on. After an answer that ends the exchange, what had gone before.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the filter answered, call by call; nothing when it was not called.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// The one answer of modes `First` and `Whole`, or the last one.
    #[track_caller]
    pub fn answer(&self) -> &Answer {
        match self.answers.last() {
            Some(answer) => answer,
            None => panic!("the filter was not called for this body"),
        }
    }

    pub fn was_called(&self) -> bool {
        !self.answers.is_empty()
    }

    /// It is larger than the filter takes, and is refused as the plan wants it: by 413, or 502.
    pub fn is_refused(&self) -> bool {
        self.refused
    }
}

impl<F: Filter + Exports> Exchange<'_, F> {
    /// The phase of the request's body, which comes in these pieces. What they are for the filter is its mode's to say.
    #[track_caller]
    pub fn request_body<P: AsRef<[u8]>>(
        &mut self,
        pieces: impl IntoIterator<Item = P>,
    ) -> TestBody {
        let plan = &self.harness.plan;
        let (mode, interest) = (plan.request_body, plan.request_fields.clone());
        self.body(
            Phase::RequestBody,
            mode,
            &interest,
            pieces,
            |exchange, interest, shown| {
                let fields = exchange.request.fields.clone();
                let block = exchange.request.body_block(exchange.state, interest, shown);
                let block = block::hide(block, exchange.harness.plan.facts);
                let verdict = exchange
                    .harness
                    .filter
                    .request_body(&RequestBody::new(&block));
                exchange.settle(Phase::RequestBody, verdict.into_bytes(), fields)
            },
        )
    }

    /// The same of the body of `response`.
    #[track_caller]
    pub fn response_body<P: AsRef<[u8]>>(
        &mut self,
        response: &TestResponse,
        pieces: impl IntoIterator<Item = P>,
    ) -> TestBody {
        let plan = &self.harness.plan;
        let (mode, interest) = (plan.response_body, plan.response_fields.clone());
        self.body(
            Phase::ResponseBody,
            mode,
            &interest,
            pieces,
            |exchange, interest, shown| {
                let fields = response.fields.clone();
                let block = response.body_block(&exchange.request, exchange.state, interest, shown);
                let block = block::hide(block, exchange.harness.plan.facts);
                let verdict = exchange
                    .harness
                    .filter
                    .response_body(&ResponseBody::new(&block));
                exchange.settle(Phase::ResponseBody, verdict.into_bytes(), fields)
            },
        )
    }

    /// The phase of the request's trailers: names in lower case, and values. The answer shows what becomes of them.
    #[track_caller]
    pub fn request_trailers(&mut self, trailers: &[(&str, &str)]) -> Answer {
        let trailers = lines(trailers);
        if !self.matches() || !self.harness.wants(Phase::RequestTrailers) {
            return Answer::not_called(trailers);
        }
        let block = self.request.trailers_block(self.state, &trailers);
        let block = block::hide(block, self.harness.plan.facts);
        let filter = &mut self.harness.filter;
        let verdict = filter.request_trailers(&RequestTrailers::new(&block));
        self.settle(Phase::RequestTrailers, verdict.into_bytes(), trailers)
    }

    /// The same of the trailers of `response`.
    #[track_caller]
    pub fn response_trailers(
        &mut self,
        response: &TestResponse,
        trailers: &[(&str, &str)],
    ) -> Answer {
        let trailers = lines(trailers);
        if !self.matches() || !self.harness.wants(Phase::ResponseTrailers) {
            return Answer::not_called(trailers);
        }
        let block = response.trailers_block(&self.request, self.state, &trailers);
        let block = block::hide(block, self.harness.plan.facts);
        let filter = &mut self.harness.filter;
        let verdict = filter.response_trailers(&ResponseTrailers::new(&block));
        self.settle(Phase::ResponseTrailers, verdict.into_bytes(), trailers)
    }

    #[track_caller]
    fn body<P: AsRef<[u8]>>(
        &mut self,
        phase: Phase,
        mode: BodyMode,
        interest: &Interest,
        pieces: impl IntoIterator<Item = P>,
        mut call: impl FnMut(&mut Self, &Interest, Shown<'_>) -> Answer,
    ) -> TestBody {
        let pieces: Vec<Vec<u8>> = pieces.into_iter().map(|p| p.as_ref().to_vec()).collect();
        let mut body = TestBody {
            answers: Vec::new(),
            bytes: pieces.concat(),
            refused: false,
        };
        let skips = match phase {
            Phase::RequestBody => self.skips_request_body,
            _ => self.skips_response_body,
        };
        if mode == BodyMode::Skip || skips || !self.matches() || !self.harness.wants(phase) {
            return body;
        }
        let size = body.bytes.len();
        let shown = match mode {
            BodyMode::Whole { max, over } if size as u64 > u64::from(max) => {
                body.refused = over == OverCap::Refuse;
                assert!(
                    over != OverCap::Fail,
                    "the body has {size} bytes, and more than {max} are a fault with this plan"
                );
                return body;
            }
            BodyMode::Whole { .. } => size,
            BodyMode::First(max) => size.min(max as usize),
            _ => {
                body.bytes.clear();
                self.pass(mode, &pieces, &mut body, call);
                return body;
            }
        };
        let more = shown < size;
        let answer = call(
            self,
            interest,
            Shown {
                piece: &body.bytes[..shown],
                last: !more,
                more,
            },
        );
        match answer.replaced() {
            _ if !answer.is_next() => body.bytes.clear(),
            Some(made) => drop(body.bytes.splice(..shown, made.iter().copied())),
            None => {}
        }
        body.answers.push(answer);
        body
    }

    #[track_caller]
    fn pass(
        &mut self,
        mode: BodyMode,
        pieces: &[Vec<u8>],
        body: &mut TestBody,
        mut call: impl FnMut(&mut Self, &Interest, Shown<'_>) -> Answer,
    ) {
        // Where the end is not known with the last bytes, an empty piece tells it.
        let empty = Vec::new();
        let pieces = match pieces {
            [] => std::slice::from_ref(&empty),
            pieces => pieces,
        };
        for (at, piece) in pieces.iter().enumerate() {
            let last = at + 1 == pieces.len();
            if piece.is_empty() && !last {
                continue;
            }
            let shown = Shown {
                piece,
                last,
                more: false,
            };
            let answer = call(self, &Interest::None, shown).passed(mode == BodyMode::Watch);
            let goes_on = answer.is_next();
            if goes_on {
                body.bytes
                    .extend_from_slice(answer.replaced().unwrap_or(piece));
            }
            body.answers.push(answer);
            if !goes_on {
                return;
            }
        }
    }
}

fn lines(trailers: &[(&str, &str)]) -> Fields {
    trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
        .collect()
}
