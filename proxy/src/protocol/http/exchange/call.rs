//! A call: an exchange without a client, whose request and response lie in memory. It goes the way of every exchange
//! from the pool to the response's end, past filters and records.

use super::{Ending, Exchange, Incoming, Kind};
use crate::error::Reason;
use crate::head::{RequestHead, Version};
use crate::io::timer::Timer;
use crate::protocol::http::call::{
    CallError, CallRequest, CallResponse, Caller, Calling, MemoryClient,
};
use crate::protocol::http::client::Client;
use crate::protocol::http::client_side::ResponseBody;
use crate::protocol::http::forward::{self, Arrived, Hop};
use crate::protocol::http::h1::framing::Framing;
use crate::upstream::Pool;
use std::sync::Arc;

/// [`call`], for those who know nothing of exchanges.
pub fn make_call<'a>(
    caller: &'a Caller<'a>,
    pool: Arc<Pool>,
    request: Box<CallRequest>,
) -> Calling<'a> {
    Box::pin(async move { call(caller, &pool, *request).await })
}

/// Asks an endpoint of `pool`, as an exchange would: balanced, over kept or shared connections, with the pool's retries.
/// It writes no record and counts for no listener, only for the pool. Dropping the future ends it.
pub async fn call(
    caller: &Caller<'_>,
    pool: &Arc<Pool>,
    request: CallRequest,
) -> Result<CallResponse, CallError> {
    if !request.is_valid() {
        return Err(CallError::Invalid);
    }
    let timer = Timer::new();
    let mut side = MemoryClient::new(request.body.clone(), request.response_bytes_max);
    let arrived = Arrived {
        client: Client::at(caller.client, caller.origin),
        id: None,
        hop: Hop::default(),
    };
    let timeout = Some(request.timeout);
    let incoming = incoming(request);
    let mut exchange = Exchange::of(
        caller.service,
        caller.connection,
        &timer,
        &mut side,
        incoming,
        arrived,
    );
    exchange.kind = Kind::Call;
    // A listener that waits longer or shorter for its own responses says nothing about calls.
    exchange.state.route.try_timeout = timeout;
    exchange.state.route.total_timeout = timeout;
    exchange.call(pool).await
}

impl Exchange<'_, MemoryClient> {
    /// The phases of a call.
    async fn call(&mut self, pool: &Arc<Pool>) -> Result<CallResponse, CallError> {
        self.journal.pool = Some(pool.clone());
        let (mut upstream, response, lease) = self.upstream_response(pool).await?;
        let body = self.response_body(&response);
        let mut head = response.head;
        self.response_hop = forward::strip_hop_by_hop(&mut head.fields);
        if body != ResponseBody::None {
            head.fields.remove(b"content-length");
        }
        if !self.side.accepts(body) {
            return Err(CallError::TooLarge);
        }
        let ending = self.bodies(&mut upstream, Some(&lease)).await;
        match ending {
            Ending::Complete if response.keep_alive => self.keep(upstream, &lease, pool),
            Ending::Complete | Ending::CompleteThenClose => {}
            _ if self.side.overflowed => return Err(CallError::TooLarge),
            _ => return Err(self.journal.reason.unwrap_or(Reason::UpstreamReset).into()),
        }
        Ok(CallResponse {
            status: head.status,
            fields: head.fields,
            body: self.side.take_response(),
        })
    }
}

/// The request as a client's would have come, with what only the proxy says removed.
fn incoming(request: CallRequest) -> Incoming {
    let mut fields = request.fields;
    forward::strip_hop_by_hop(&mut fields);
    fields.retain_lines(|name, _| {
        !matches!(name, b"host" | b"content-length" | b"expect" | b"trailer")
    });
    let framing = match request.body.len() {
        // Their empty bodies have a length (RFC 9110 §8.6).
        0 if matches!(&*request.method, b"POST" | b"PUT" | b"PATCH") => Framing::Length(0),
        0 => Framing::None,
        length => Framing::Length(length as u64),
    };
    Incoming {
        head: RequestHead::new(
            Version::Http11,
            &request.method,
            &request.authority,
            &request.target,
            fields,
        ),
        framing,
        expect_continue: false,
    }
}
