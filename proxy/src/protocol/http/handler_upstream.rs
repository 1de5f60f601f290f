//! A handler while it serves one exchange: the endpoint is a component, and nothing is connected to.

use super::fields::{fields, header_map};
use super::h1::body::{BodyError, Pulled, Taker};
use super::h1::framing::Framing;
use super::h1::parse::ParsedResponse;
use super::h2_upstream::{self, Target};
use super::inner::InnerJournal;
use crate::chain::Passage;
use crate::error::Reason;
use crate::head::{Fields, HeadLimits, RequestHead, Version};
use crate::upstream::{Lease, Pool};
use crate::wasm::{HandlerCall, HandlerFault, Onward, Onwards, Piece};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
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

/// An exchange that middleware began.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;
/// Begins one.
pub type Begin = Box<dyn Fn(Onward) -> Running>;

pub struct Upstream {
    call: HandlerCall,
    /// Of middleware.
    behind: Option<Behind>,
    trailers: Option<Fields>,
    /// Bytes that the response's length still promises.
    promised: Option<u64>,
    done: bool,
    fault: Option<Reason>,
    pub answered: bool,
}

/// What middleware asks for, as it goes on beside the guest: never within it, for a guest cannot run while another's runs.
struct Behind {
    asked: Onwards,
    begin: Begin,
    running: Vec<Running>,
    told: Rc<RefCell<InnerJournal>>,
    _passage: Passage,
}

impl Behind {
    /// Goes on with everything that was asked for; a filter may end the client's connection meanwhile.
    fn drive(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        while let Poll::Ready(Some(onward)) = self.asked.poll_next(cx) {
            self.running.push((self.begin)(onward));
        }
        self.running
            .retain_mut(|exchange| exchange.as_mut().poll(cx).is_pending());
        match self.told.borrow().cut {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
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
        Some(Self::of(call, None))
    }

    /// The same in middleware; `begin` begins what it asks of those behind it, who report to `told`.
    pub fn through(
        passage: Passage,
        head: &RequestHead,
        target: &Target<'_>,
        begin: Begin,
        told: Rc<RefCell<InnerJournal>>,
    ) -> Option<Self> {
        let request = h2_upstream::request(head, target)?;
        let middleware = passage.middleware();
        let (call, asked) = HandlerCall::of_middleware(
            middleware.handler(),
            middleware.limits(),
            middleware.name(),
            request,
            target.secure,
            target.framing.has_body(),
        );
        let behind = Behind {
            asked,
            begin,
            running: Vec::new(),
            told,
            _passage: passage,
        };
        Some(Self::of(call, Some(behind)))
    }

    fn of(call: HandlerCall, behind: Option<Behind>) -> Self {
        Self {
            call,
            behind,
            trailers: None,
            promised: None,
            done: true,
            fault: None,
            answered: false,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        let Some(behind) = &mut self.behind else {
            return Ok(());
        };
        if self.call.has_ended() {
            // A body that it was writing seems to end with it, and must not look whole to an endpoint.
            behind.running.clear();
            return Ok(());
        }
        behind.drive(cx)
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
        let polled = self.call.poll_taken(cx);
        if polled.is_pending() {
            // What there is to say of it is said where the response is asked for.
            let _ = self.drive(cx);
        }
        polled
    }

    /// Ready when the handler's time is up.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Err(reason) = self.drive(cx) {
            return Poll::Ready(reason);
        }
        self.call.poll_overdue(cx).map(|()| Reason::HandlerTimeout)
    }

    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        head_request: bool,
    ) -> Poll<Result<ParsedResponse, Reason>> {
        let polled = self.call.poll_head(cx);
        self.drive(cx)?;
        let mut head = ready!(polled).map_err(reason)?;
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
            let polled = self.call.poll_body(cx);
            // Also at the end, so that those who have nothing left to do but to keep their connections do.
            if !matches!(polled, Poll::Ready(Ok(Piece::Data(_))))
                && let Err(reason) = self.drive(cx)
            {
                return Poll::Ready(Err(self.broken(reason)));
            }
            match ready!(polled) {
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
                Ok(Piece::Trailers(lines)) => self.trailers = Some(fields(&lines)),
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
