//! An exchange that waits for what its filters suspended for.

use super::call::make_call;
use super::{Exchange, request_facts};
use crate::chain::{Outcome, ResponseFacts, Suspension};
use crate::error::Reason;
use crate::head::ResponseHead;
use crate::protocol::http::call::Caller;
use crate::protocol::http::client_side::ClientSide;
use crate::protocol::http::suspended::{Results, perform};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

impl<C: ClientSide> Exchange<'_, C> {
    /// Performs what a filter waits for and goes on with the request phase, until it is decided. `Err` is why the exchange
    /// ends before: the filter has been told then.
    pub(super) async fn request_resumed(
        &mut self,
        mut suspension: Box<Suspension>,
    ) -> Result<Outcome, Reason> {
        loop {
            let results = self.perform(&suspension).await?;
            let facts = request_facts(self.connection, &self.client, &self.id, self.framing);
            let (chain, state) = (&self.service.chain, &mut self.state);
            match chain.resume_request(state, &facts, &mut self.head, *suspension, &results) {
                Outcome::Suspend(again) => suspension = again,
                outcome => return Ok(outcome),
            }
        }
    }

    /// The same for the response phase.
    pub(super) async fn response_resumed(
        &mut self,
        mut suspension: Box<Suspension>,
        head: &mut ResponseHead,
    ) -> Result<Outcome, Reason> {
        loop {
            let results = self.perform(&suspension).await?;
            let facts = ResponseFacts {
                request: request_facts(self.connection, &self.client, &self.id, self.framing),
                version: self.head.version,
                method: self.head.method(),
                authority: self.head.authority(),
                target: self.head.target(),
                endpoint: self.journal.endpoint.as_deref().unwrap_or(""),
                pool: self.journal.pool.as_ref().map_or("", |p| &*p.config.name),
            };
            let (chain, state) = (&self.service.chain, &mut self.state);
            match chain.resume_response(state, &facts, head, *suspension, &results) {
                Outcome::Suspend(again) => suspension = again,
                outcome => return Ok(outcome),
            }
        }
    }

    /// Performs all effects side by side, within the exchange's total time, as long as the client is there.
    async fn perform(&mut self, suspension: &Suspension) -> Result<Results, Reason> {
        self.timer.set(self.until_total(Duration::MAX)?);
        let caller = Caller {
            service: self.service,
            connection: self.connection,
            client: self.client.ip,
            origin: self.client.origin,
            make: make_call,
        };
        let mut work = pin!(perform(&caller, suspension));
        let (timer, side) = (self.timer, &mut *self.side);
        let waited = timer.run(poll_fn(|cx| {
            if let Poll::Ready(results) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(results));
            }
            // A client whose body was not read yet is not asked whether it is there.
            side.poll_gone(cx).map(|()| Err(Reason::ClientGone))
        }));
        let results = waited.await.unwrap_or(Err(Reason::TotalTimeout));
        if results.is_err() {
            // The chain, which is not asked any more, counts the others.
            self.state.filter_wait += suspension.waited();
        }
        results
    }
}
