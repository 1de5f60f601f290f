//! One stream: the client's side of its exchange, pushed into and pulled from the h2 crate within the exchange's own task.

use super::body::RequestBody;
use super::request;
use super::wire::{DATA_MIN, Payments};
use crate::chain::Reply;
use crate::connection::Connection;
use crate::generation::Service;
use crate::head::target;
use crate::head::{Fields, HeadLimits, ResponseHead, Version};
use crate::io::timer::Timer;
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::exchange::{self, Ending};
use crate::protocol::http::fields::header_map;
use crate::protocol::http::h1::body::{BodyError, Pulled, Taker};
use crate::protocol::http::h1::parse::Refusal;
use crate::protocol::http::{grpc, respond};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What a client gets to see its answer before it is told to stop sending.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By our answer, whatever it was.
    Served,
    /// By the client: it reset the stream, broke the protocol on it, or left.
    Cancelled,
}

/// Serves the stream to its end. When the client ends it first, everything that was under way for it stops at once.
pub(super) async fn serve(
    service: Rc<Service>,
    connection: Rc<Connection>,
    payments: Payments,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> End {
    let config = service.listener.config.clone();
    let (head, body) = request.into_parts();
    let body = RequestBody::new(body);
    let has_body = !body.is_done();
    let body = Rc::new(RefCell::new(body));
    let out = Rc::new(RefCell::new(Out::Head(respond)));
    let client = Http2Client {
        body: body.clone(),
        trailers: None,
        limits: service.listener.head_limits(),
        payments,
        out: out.clone(),
        head: None,
        data: BytesMut::new(),
        ending: None,
        ended: false,
    };
    let mut work = pin!(answer(service, connection, head, client));
    let end = std::future::poll_fn(|cx| {
        if out.borrow_mut().poll_reset(cx).is_ready() {
            return Poll::Ready(End::Cancelled);
        }
        let end = work.as_mut().poll(cx);
        if has_body && end.is_pending() {
            body.borrow_mut().collect(cx);
        }
        end
    })
    .await;
    drop(out);
    let unread = match end {
        End::Served => body.borrow_mut().take(),
        End::Cancelled => None,
    };
    if let Some(body) = unread {
        let time = config.timeouts.linger.min(LINGER_MAX);
        linger(body, config.limits.linger_bytes, time).await;
    }
    end
}

/// Throws away what still comes of a body whose request is answered. Then the stream is reset without an error, which a
/// client that learns of both at once may take for the answer's end.
async fn linger(mut body: RecvStream, bytes_max: usize, time: Duration) {
    let mut left = bytes_max;
    let discard = async {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            left = left.saturating_sub(data.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(time, discard).await;
}

async fn answer(
    service: Rc<Service>,
    connection: Rc<Connection>,
    parts: Parts,
    mut client: Http2Client,
) -> End {
    let timer = Timer::new();
    let ending = match request::accept(&parts, client.body_done(), &client.limits) {
        Ok(incoming) => {
            drop(parts);
            exchange::run(&service, &connection, &timer, &mut client, incoming).await
        }
        Err(reason) => {
            let target = parts
                .uri
                .path_and_query()
                .map_or("", |target| target.as_str());
            let refusal = Refusal {
                reason,
                byte: target::bad_byte(target.as_bytes()),
            };
            exchange::record_refused(&service, &connection, Version::Http2, refusal);
            let via = &service.listener.config.http.via;
            let mut reply = respond::failure(reason, via, "");
            let content_type = parts.headers.get(CONTENT_TYPE);
            if grpc::is_call(content_type.map(HeaderValue::as_bytes)) {
                reply = grpc::answer(reply);
            }
            client.refuse(reply);
            // Without a window for it, the refusal is not worth waiting for longer than for a request.
            timer.set(service.listener.config.timeouts.head);
            match timer
                .run(std::future::poll_fn(|cx| client.poll_flush(cx)))
                .await
            {
                Ok(Ok(())) => Ending::Complete,
                Ok(Err(_)) => Ending::Gone,
                Err(_) => Ending::Reset,
            }
        }
    };
    match ending {
        Ending::Complete | Ending::CompleteThenClose => {}
        Ending::Gone => return End::Cancelled,
        Ending::Abort(code) => {
            // A reset overtakes what is queued. What arrived before the failure goes out as far as it can, so that the
            // client sees a response that broke off and not none at all.
            let _ = std::future::poll_fn(|cx| Poll::Ready(client.poll_flush(cx))).await;
            tokio::task::yield_now().await;
            client.out.borrow_mut().reset(code);
        }
        Ending::Drop | Ending::Reset => {
            client.out.borrow_mut().reset(h2::Reason::CANCEL);
        }
    }
    End::Served
}

/// Where the response goes.
enum Out {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

impl Out {
    /// Ready when the stream was reset from either side by other than [`Out::reset`], or its connection is gone.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Out::Head(respond) => respond.poll_reset(cx).map(drop),
            Out::Body(stream) => stream.poll_reset(cx).map(drop),
        }
    }

    fn reset(&mut self, reason: h2::Reason) {
        match self {
            Out::Head(respond) => respond.send_reset(reason),
            Out::Body(stream) => stream.send_reset(reason),
        }
    }

    fn send_head(&mut self, response: Response<()>, end: bool) -> Result<(), h2::Error> {
        if let Out::Head(respond) = self {
            let stream = respond.send_response(response, end)?;
            *self = Out::Body(stream);
        }
        Ok(())
    }
}

/// The client's side of one exchange on a stream.
struct Http2Client {
    body: Rc<RefCell<RequestBody>>,
    trailers: Option<Fields>,
    limits: HeadLimits,
    payments: Payments,
    out: Rc<RefCell<Out>>,
    /// Kept back until the first data or the end is known, so that they leave together.
    head: Option<(ResponseHead, ResponseBody)>,
    /// Waits for the client's window; at most one piece.
    data: BytesMut,
    /// The end is to be sent, with these trailers.
    ending: Option<Option<HeaderMap>>,
    /// The end was sent; nothing may follow it.
    ended: bool,
}

impl Http2Client {
    /// Queues a whole answer of the proxy's own.
    fn refuse(&mut self, reply: Reply) {
        let length = match reply.body.len() {
            0 => ResponseBody::Empty,
            length => ResponseBody::Length(length as u64),
        };
        let head = ResponseHead {
            version: Version::Http2,
            status: reply.status,
            fields: reply.fields,
        };
        self.head = Some((head, length));
        self.data.extend_from_slice(&reply.body);
        self.ending = Some(None);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let mut out = self.out.borrow_mut();
        if let Some((head, body)) = self.head.take() {
            let whole = self.data.is_empty() && matches!(self.ending, Some(None));
            self.ended = body == ResponseBody::None || whole;
            out.send_head(response(&head, body), self.ended)?;
        }
        let Out::Body(stream) = &mut *out else {
            return Poll::Ready(Ok(()));
        };
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        while !self.data.is_empty() {
            // Only what the client's windows have room for is handed over, so that what waits for them waits here, where
            // the exchange's deadline sees it.
            stream.reserve_capacity(self.data.len());
            let room = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
                },
                room => room,
            };
            let piece = self.data.split_to(room.min(self.data.len())).freeze();
            if self.data.is_empty() && piece.len() < DATA_MIN {
                self.payments.message_sent();
            }
            let last = self.data.is_empty() && matches!(self.ending, Some(None));
            stream.send_data(piece, last)?;
            self.ended |= last;
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        match self.ending.take() {
            None => {}
            Some(None) => {
                stream.send_data(Bytes::new(), true)?;
                self.ended = true;
            }
            Some(Some(trailers)) => {
                stream.send_trailers(trailers)?;
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn response(head: &ResponseHead, body: ResponseBody) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = header_map(&head.fields);
    if let ResponseBody::Length(n) = body {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(n));
    }
    response
}

impl ClientSide for Http2Client {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        let mut body = self.body.borrow_mut();
        match ready!(body.poll_data(cx, take)) {
            Ok(0) => {}
            Ok(read) => return Poll::Ready(Ok(Pulled::Data(read))),
            Err(_) => return Poll::Ready(Err(BodyError::Truncated(None))),
        }
        match ready!(body.poll_trailers(cx)) {
            Err(_) => return Poll::Ready(Err(BodyError::Truncated(None))),
            Ok(None) => {}
            Ok(Some(map)) => match request::trailers(&map, &self.limits) {
                Some(trailers) => self.trailers = Some(trailers),
                None => return Poll::Ready(Err(BodyError::Malformed)),
            },
        }
        Poll::Ready(Ok(Pulled::End))
    }

    fn body_done(&self) -> bool {
        self.body.borrow().is_done()
    }

    fn body_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.out.borrow_mut().poll_reset(cx)
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        if let Out::Head(respond) = &mut *self.out.borrow_mut() {
            // Fails only for a stream that is over.
            let _ = respond.send_informational(response(head, ResponseBody::None));
        }
    }

    fn send_head(&mut self, head: ResponseHead, body: ResponseBody, _tunnel: Option<&[u8]>) {
        self.head = Some((head, body));
    }

    fn send_data(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn send_end(&mut self, trailers: Option<Fields>) {
        let trailers = trailers.map(|t| header_map(&t));
        self.ending = Some(trailers.filter(|map| !map.is_empty()));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
