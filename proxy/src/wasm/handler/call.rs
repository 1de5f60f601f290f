//! One request in one instance. Its exchange polls it, from its own task; dropping it ends the guest wherever it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, response};
use hyper::body::Body;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime_wasi_http::WasiBody;

use super::super::deadline::{Pulse, processor_time};
use super::super::log::{Level, LogSink};
use super::guest::Guest;
use super::module::{Handler, World};
use super::onward::{Asker, Onwards, onwards};
use super::output::Output;
use super::piece::{Answer, Piece};
use super::upload::{Upload, upload};
use super::{proxy, service};
use crate::config::HandlerLimits;
use crate::wasm::words::tame_lines;

/// Bytes of a trap's description that are logged.
const TRAP_SHOWN: usize = 2048;

/// Why a handler gave no response, or no whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerFault {
    /// It trapped, or ended without a response.
    Broken,
    /// It ran for longer than its `deadline`, or computed for longer than its `cpu`.
    Timeout,
    /// There is no room for another instance.
    Busy,
}

type Running = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;
pub struct HandlerCall {
    /// The guest, until it has returned or was ended.
    running: Option<Running>,
    fault: Option<HandlerFault>,
    upload: Upload,
    answer: oneshot::Receiver<Answer>,
    body: Option<WasiBody>,
    deadline: Pin<Box<Sleep>>,
    limits: HandlerLimits,
    /// Processor time of the guest so far.
    used: Duration,
    outgrown: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
    log: LogSink,
    /// The pool's name.
    label: Arc<str>,
}

impl HandlerCall {
    /// Begins a request; nothing runs before the first poll. Needs a tokio runtime. `label` names the pool in the log.
    pub fn new(
        handler: &Arc<Handler>,
        limits: &HandlerLimits,
        label: &Arc<str>,
        request: Request<()>,
        secure: bool,
        has_body: bool,
    ) -> Self {
        Self::begin(handler, limits, label, request, secure, has_body, None)
    }

    /// The same of middleware, with the requests that it makes of what is behind it.
    pub fn of_middleware(
        handler: &Arc<Handler>,
        limits: &HandlerLimits,
        label: &Arc<str>,
        request: Request<()>,
        secure: bool,
        has_body: bool,
    ) -> (Self, Onwards) {
        let (asker, asked) = onwards();
        let asker = Some(asker);
        let call = Self::begin(handler, limits, label, request, secure, has_body, asker);
        (call, asked)
    }

    fn begin(
        handler: &Arc<Handler>,
        limits: &HandlerLimits,
        label: &Arc<str>,
        request: Request<()>,
        secure: bool,
        has_body: bool,
        asker: Option<Asker>,
    ) -> Self {
        let (upload, body) = upload(!has_body);
        let (answers, answer) = oneshot::channel();
        let outgrown = Arc::new(AtomicBool::new(false));
        let log = handler.log.clone();
        let output = Output::new(log.clone(), label.clone());
        let mut guest = Guest::new(&output, limits.memory, outgrown.clone());
        if let Some(asker) = asker {
            guest = guest.with(asker);
        }
        let store = guest.into_store(&handler.lane.engine);
        let request = request.map(|()| body);
        let running: Running = match &handler.world {
            World::Proxy(pre) => {
                Box::pin(proxy::handle(pre.clone(), store, request, secure, answers))
            }
            World::Service(pre) => Box::pin(service::handle(
                pre.clone(),
                store,
                request,
                secure,
                answers,
            )),
        };
        Self {
            running: Some(running),
            fault: None,
            upload,
            answer,
            body: None,
            deadline: Box::pin(tokio::time::sleep(limits.deadline)),
            limits: limits.clone(),
            used: Duration::ZERO,
            outgrown,
            pulse: handler.lane.pulse().clone(),
            log,
            label: label.clone(),
        }
    }

    /// Queues data of the request's body. To be called when [`HandlerCall::poll_taken`] is ready, so that one piece waits at most.
    pub fn queue(&self, data: &[u8]) {
        self.upload.queue(data);
    }

    /// The request's body has ended.
    pub fn end(&self, trailers: Option<HeaderMap>) {
        self.upload.end(trailers);
    }

    /// Whether the guest has what was queued, or does not want it.
    pub fn is_taken(&self) -> bool {
        self.upload.is_taken()
    }

    /// Ready when the guest has taken what was queued.
    pub fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_taken() {
            self.run(cx);
        }
        self.upload.poll_taken(cx)
    }

    /// The response's head. Asked for once.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, HandlerFault>> {
        if self.body.is_none() {
            self.run(cx);
        }
        match Pin::new(&mut self.answer).poll(cx) {
            Poll::Ready(Ok(Ok(response))) => {
                let (head, body) = response.into_parts();
                self.body = Some(body);
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Ok(Err(code))) => {
                self.tell(&format!("the handler answered with an error: {code}"));
                Poll::Ready(Err(HandlerFault::Broken))
            }
            Poll::Ready(Err(_)) => {
                if self.fault.is_none() {
                    self.tell("the handler returned without a response");
                }
                Poll::Ready(Err(self.fault.unwrap_or(HandlerFault::Broken)))
            }
            Poll::Pending => match self.fault {
                Some(fault) => Poll::Ready(Err(fault)),
                None => Poll::Pending,
            },
        }
    }

    /// The next of the response's body, after its head.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, HandlerFault>> {
        match self.poll_piece(cx) {
            Poll::Pending if self.running.is_some() => {
                self.run(cx);
                self.poll_piece(cx)
            }
            polled => polled,
        }
    }

    /// Ready when the guest's time is up, also while nobody takes what it writes.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.running {
            Some(_) => self.deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The guest does not run any more, for whatever reason: what it was writing will not be finished.
    pub fn has_ended(&self) -> bool {
        self.running.is_none()
    }

    /// The response's body is not wanted: the guest sees it closed.
    pub fn discard_body(&mut self) {
        self.body = None;
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, HandlerFault>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(Piece::End));
        };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                // What has ended without the body's end will not end it any more.
                return match (self.fault, self.running.is_some()) {
                    (Some(fault), _) => Poll::Ready(Err(fault)),
                    (None, false) => Poll::Ready(Err(HandlerFault::Broken)),
                    (None, true) => Poll::Pending,
                };
            }
            Poll::Ready(frame) => frame,
        };
        Poll::Ready(match frame {
            // A guest that is ended lets go of its body, which looks like the body's end.
            None => self.fault.map_or(Ok(Piece::End), Err),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Ok(Piece::Data(data)),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Ok(Piece::Trailers(trailers)),
                    Err(_) => Err(HandlerFault::Broken),
                },
            },
            Some(Err(_)) => Err(self.fault.unwrap_or(HandlerFault::Broken)),
        })
    }

    /// Lets the guest run until it waits, yields or ends.
    fn run(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else {
            return;
        };
        if self.deadline.as_mut().poll(cx).is_ready() {
            let text = format!(
                "the handler was ended after its deadline of {:?}",
                self.limits.deadline
            );
            return self.end_with(HandlerFault::Timeout, &text);
        }
        let epochs = self.pulse.enter();
        let began = processor_time();
        let polled = running.as_mut().poll(cx);
        drop(epochs);
        self.used += processor_time().saturating_sub(began);
        match polled {
            Poll::Ready(Ok(())) => self.running = None,
            Poll::Ready(Err(error)) => {
                let full = error
                    .downcast_ref::<wasmtime::PoolConcurrencyLimitError>()
                    .is_some();
                let why = match self.outgrown.load(Ordering::Relaxed) {
                    true => format!("; its memory is limited to {} bytes", self.limits.memory),
                    false => String::new(),
                };
                match full {
                    true => {
                        self.end_with(HandlerFault::Busy, "no room for another handler instance")
                    }
                    false => {
                        let trap = tame_lines(&format!("{error:#}"), TRAP_SHOWN);
                        self.end_with(
                            HandlerFault::Broken,
                            &format!("the handler failed: {trap}{why}"),
                        );
                    }
                }
            }
            Poll::Pending if self.used > self.limits.cpu => {
                let text = format!(
                    "the handler was ended after its {:?} of processor time",
                    self.limits.cpu
                );
                self.end_with(HandlerFault::Timeout, &text);
            }
            Poll::Pending => {}
        }
    }

    fn end_with(&mut self, fault: HandlerFault, text: &str) {
        self.fault = Some(fault);
        self.running = None;
        self.tell(text);
    }

    fn tell(&self, text: &str) {
        self.log.write(&self.label, Level::Warn, text);
    }
}
