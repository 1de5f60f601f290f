//! A handler while it serves one exchange: the endpoint is a component, and nothing is connected to.

use super::h1::body::{BodyError, Pulled, Taker};
use super::h1::framing::Framing;
use super::h1::parse::ParsedResponse;
use super::h2::header_map;
use super::h2_upstream::{self, Target};
use crate::error::Reason;
use crate::head::{Fields, HeadLimits, RequestHead, Version};
use crate::upstream::{Lease, Pool};
use crate::wasm::{HandlerCall, HandlerFault, Piece};
use std::task::{Context, Poll, ready};

/// Fields of a connection, which is the proxy's business: handlers that set them are not heard.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

pub struct Upstream {
    call: HandlerCall,
    trailers: Option<Fields>,
    /// Bytes that the response's length still promises.
    promised: Option<u64>,
    done: bool,
    fault: Option<Reason>,
    pub answered: bool,
}

impl Upstream {
    /// Begins a request in an instance of its own; none when the request cannot be said in `wasi:http`.
    pub fn begin(
        pool: &Pool,
        lease: &Lease,
        head: &RequestHead,
        target: &Target<'_>,
    ) -> Option<Self> {
        let handler = pool.handler(&lease.endpoint)?;
        let request = h2_upstream::request(head, target)?;
        let call = HandlerCall::new(
            handler,
            &pool.config.handler,
            &pool.config.name,
            request,
            target.secure,
            target.framing.has_body(),
        );
        Some(Self {
            call,
            trailers: None,
            promised: None,
            done: true,
            fault: None,
            answered: false,
        })
    }

    pub fn queue_data(&mut self, data: &[u8]) {
        self.call.queue(data);
    }

    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        self.call.end(trailers.map(header_map));
    }

    pub fn has_output(&self) -> bool {
        !self.call.is_taken()
    }

    /// Ready when the guest has taken everything that was queued, or does not want it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.call.poll_taken(cx)
    }

    /// Ready when the handler's time is up.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.call.poll_overdue(cx).map(|()| Reason::HandlerTimeout)
    }

    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        head_request: bool,
    ) -> Poll<Result<ParsedResponse, Reason>> {
        let mut head = ready!(self.call.poll_head(cx)).map_err(reason)?;
        self.answered = true;
        for name in HOP_BY_HOP {
            head.headers.remove(name);
        }
        let mut parsed = h2_upstream::parsed(head.status, &head.headers, limits, head_request)
            .map_err(|_| Reason::HandlerFault)?;
        if parsed.head.status < 200 {
            return Poll::Ready(Err(Reason::HandlerFault));
        }
        // It speaks no version; what stands in Via is the proxy's own.
        parsed.head.version = Version::Http11;
        self.promised = match parsed.framing {
            Framing::Length(n) => Some(n),
            _ => None,
        };
        self.done = !parsed.framing.has_body();
        if self.done {
            self.call.discard_body();
        }
        Poll::Ready(Ok(parsed))
    }

    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        while !self.done {
            match ready!(self.call.poll_body(cx)) {
                Ok(Piece::Data(data)) if data.is_empty() => {}
                Ok(Piece::Data(data)) => {
                    if let Some(promised) = &mut self.promised {
                        match promised.checked_sub(data.len() as u64) {
                            Some(left) => *promised = left,
                            None => return Poll::Ready(Err(self.broken(Reason::HandlerFault))),
                        }
                    }
                    take(cx, &data);
                    return Poll::Ready(Ok(Pulled::Data(data.len())));
                }
                Ok(Piece::Trailers(lines)) => self.trailers = Some(h2_upstream::fields(&lines)),
                Ok(Piece::End) if self.promised.unwrap_or(0) > 0 => {
                    return Poll::Ready(Err(self.broken(Reason::HandlerFault)));
                }
                Ok(Piece::End) => self.done = true,
                Err(fault) => return Poll::Ready(Err(self.broken(reason(fault)))),
            }
        }
        Poll::Ready(Ok(Pulled::End))
    }

    /// Why the body broke, when it did.
    pub fn fault(&self) -> Option<Reason> {
        self.fault
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    pub fn discard_body(&mut self) {
        self.done = true;
        self.call.discard_body();
    }

    fn broken(&mut self, reason: Reason) -> BodyError {
        self.fault = Some(reason);
        BodyError::Truncated(None)
    }
}

fn reason(fault: HandlerFault) -> Reason {
    match fault {
        HandlerFault::Broken => Reason::HandlerFault,
        HandlerFault::Timeout => Reason::HandlerTimeout,
        HandlerFault::Busy => Reason::Overload,
    }
}
