//! What middleware asks of the handler it imports: a request, from the guest's hands into those of the exchange that polls
//! the guest, and the response on its way back. Both bodies are streamed.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use hyper::body::Body;
use tokio::sync::{mpsc, oneshot};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, WasiBody};

use super::piece::Piece;
use super::upload::{Upload, UploadBody, upload};

/// Requests that middleware may make while it answers one.
pub const ONWARD_MAX: usize = 16;

type Sent = oneshot::Sender<Result<(), Error>>;

/// A request of middleware to whatever is behind it.
pub struct Onward {
    pub request: Request<OnwardBody>,
    pub reply: OnwardReply,
}

/// Its body. Dropped before its end, the guest is told that it was not sent.
pub struct OnwardBody {
    body: WasiBody,
    sent: Option<Sent>,
}

/// The way back. Dropped before the response's end, the guest sees a response, or a body, that broke off.
pub struct OnwardReply {
    answer: Option<oneshot::Sender<Response<UploadBody>>>,
    pieces: Option<Upload>,
}

/// The requests that a guest makes, in order.
pub struct Onwards(mpsc::Receiver<Onward>);

/// The guest's end of that.
pub(super) struct Asker {
    asks: mpsc::Sender<Onward>,
    left: usize,
}

pub(super) fn onwards() -> (Asker, Onwards) {
    let (asks, asked) = mpsc::channel(ONWARD_MAX);
    let asker = Asker {
        asks,
        left: ONWARD_MAX,
    };
    (asker, Onwards(asked))
}

impl Asker {
    /// Passes a request of the guest on, and gives what its response comes by; `sent` learns how its body ended.
    pub(super) fn ask(
        &mut self,
        request: Request<WasiBody>,
        sent: Sent,
    ) -> Result<oneshot::Receiver<Response<UploadBody>>, ErrorCode> {
        if self.left == 0 {
            return Err(ErrorCode::HttpRequestDenied);
        }
        self.left -= 1;
        let (answer, answered) = oneshot::channel();
        let onward = Onward {
            request: request.map(|body| OnwardBody {
                body,
                sent: Some(sent),
            }),
            reply: OnwardReply {
                answer: Some(answer),
                pieces: None,
            },
        };
        // There is room for as many as it may ask for.
        match self.asks.try_send(onward) {
            Ok(()) => Ok(answered),
            Err(_) => Err(ErrorCode::ConnectionTerminated),
        }
    }
}

impl Onwards {
    /// The next request; none ever again when the guest has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Onward>> {
        self.0.poll_recv(cx)
    }
}

impl OnwardBody {
    /// It is known that nothing comes.
    pub fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next of it. An error is the guest's: the body does not come to its end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BrokenOff>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            None => {
                if let Some(sent) = self.sent.take() {
                    let _ = sent.send(Ok(()));
                }
                Ok(Piece::End)
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Ok(Piece::Data(data)),
                Err(frame) => frame
                    .into_trailers()
                    .map(Piece::Trailers)
                    .map_err(|_| BrokenOff),
            },
            Some(Err(_)) => Err(BrokenOff),
        })
    }
}

/// A body that will not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenOff;

impl OnwardReply {
    /// The response's head. `ended`: there is no body.
    pub fn send_head(&mut self, head: Response<()>, ended: bool) {
        let (pieces, body) = upload(ended);
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(head.map(|()| body));
        }
        self.pieces = Some(pieces);
    }

    /// Queues data of the body; to be called when [`OnwardReply::poll_taken`] is ready. Fails when the guest has let go of it.
    pub fn queue(&self, data: &[u8]) -> Result<(), BrokenOff> {
        match &self.pieces {
            Some(pieces) if !pieces.is_let_go() => {
                pieces.queue(data);
                Ok(())
            }
            _ => Err(BrokenOff),
        }
    }

    /// The body has ended.
    pub fn end(&self, trailers: Option<HeaderMap>) {
        if let Some(pieces) = &self.pieces {
            pieces.end(trailers);
        }
    }

    /// Ready when the guest has taken what was queued, or let go of the body.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.pieces {
            Some(pieces) => pieces.poll_taken(cx),
            None => Poll::Ready(()),
        }
    }

    /// Ready when the guest does not want the response any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&mut self.answer, &self.pieces) {
            (Some(answer), _) => answer.poll_closed(cx),
            (None, Some(pieces)) => pieces.poll_let_go(cx),
            (None, None) => Poll::Pending,
        }
    }
}
