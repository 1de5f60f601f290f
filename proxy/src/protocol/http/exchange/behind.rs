//! Middleware in a chain: the exchange asks it as it would ask an endpoint, and each request that it makes of what is behind
//! it is an exchange of its own, through the rest of the chain and to a pool.

use super::{Ending, Exchange, Incoming, Kind};
use crate::chain::Route;
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{Behind, RequestId, Service};
use crate::head::{Fields, RequestHead, ResponseHead, Version};
use crate::io::timer::Timer;
use crate::protocol::http::client::Client;
use crate::protocol::http::client_side::{ClientSide, ResponseBody};
use crate::protocol::http::fields::{fields, header_map};
use crate::protocol::http::forward::{self, Arrived, Hop};
use crate::protocol::http::h1::body::{BodyError, Pulled, Taker};
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::h1::parse::ParsedResponse;
use crate::protocol::http::h2_upstream::Target;
use crate::protocol::http::handler_upstream;
use crate::protocol::http::inner::InnerJournal;
use crate::protocol::http::upstream::Upstream;
use crate::wasm::{Onward, OnwardBody, OnwardReply, Piece};
use bytes::Bytes;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// What they take over from it.
struct Origin {
    service: Rc<Service>,
    connection: Rc<Connection>,
    client: Client,
    id: RequestId,
    trailers: bool,
    route: Route,
    started: Instant,
    version: Version,
    asked_authority: Vec<u8>,
    received_authority: Vec<u8>,
    /// What the middleware was inner.
    authority: Vec<u8>,
    inner: Rc<RefCell<InnerJournal>>,
}

impl<C: ClientSide> Exchange<'_, C> {
    /// Asks the middleware behind this chain, and waits for its response's head.
    pub(super) async fn through(
        &mut self,
        behind: &Behind,
    ) -> Result<(Upstream, ParsedResponse), Reason> {
        self.continue_now();
        self.head.fields.remove(b"content-length");
        let passage = behind.middleware.enter().ok_or(Reason::Overload)?;
        let inner = Rc::<RefCell<InnerJournal>>::default();
        self.inner = Some(inner.clone());
        let origin = Rc::new(Origin {
            service: behind.service.clone(),
            connection: self.connection.clone(),
            client: self.client.clone(),
            id: self.id,
            trailers: self.hop.trailers,
            route: self.state.route.clone(),
            started: self.journal.started,
            version: self.head.version,
            asked_authority: self.head.asked_authority().to_vec(),
            authority: self.head.authority().to_vec(),
            received_authority: self.head.received_authority().to_vec(),
            inner: inner.clone(),
        });
        let begin = Box::new(move |onward| {
            Box::pin(serve(origin.clone(), onward)) as handler_upstream::Running
        });
        // An HTTP/1.0 client may name no host; a request of `wasi:http` has one.
        let local;
        let authority = match self.head.authority() {
            b"" => {
                local = self.connection.local.to_string();
                local.as_bytes()
            }
            named => named,
        };
        let target = Target {
            secure: self.client.origin.secure,
            authority,
            framing: self.framing,
            trailers: self.hop.trailers,
        };
        let upstream =
            handler_upstream::Upstream::through(passage, &self.head, &target, begin, inner);
        let mut upstream = Upstream::Handler(Box::new(upstream.ok_or(Reason::BadRequest)?));
        let answer = self.ask(&mut upstream).await;
        self.adopt_inner();
        Ok((upstream, answer?))
    }

    /// A component does not say whether it wants a body: a client that waits to be asked for it is asked at once.
    pub(super) fn continue_now(&mut self) {
        if !std::mem::take(&mut self.expect_continue) {
            return;
        }
        self.head.fields.remove(b"expect");
        if !self.side.body_done() {
            self.side.send_informational(&ResponseHead {
                version: Version::Http11,
                status: 100,
                fields: Fields::default(),
            });
        }
    }

    /// Takes down which endpoint answered behind the middleware.
    fn adopt_inner(&mut self) {
        if let Some(inner) = &self.inner {
            let inner = inner.borrow();
            self.journal.pool = inner.pool.clone();
            self.journal.endpoint = inner.endpoint.clone();
        }
    }

    /// At the end, before the record is written: what happened behind the middleware is this exchange's.
    pub(super) fn adopt_all(&mut self) {
        self.adopt_inner();
        if let Some(inner) = self.inner.take() {
            let inner = inner.borrow();
            self.journal.tries += inner.tries;
            self.journal.upstream_time += inner.upstream_time;
            self.journal.reason = self.journal.reason.or(inner.reason);
            self.state.filter_time += inner.filter_time;
            self.state.filter_wait += inner.filter_wait;
        }
    }

    /// Tells the exchange before the middleware what came of this one, at its end.
    pub(super) fn publish(&self, to: &RefCell<InnerJournal>) {
        let mut inner = to.borrow_mut();
        if self.journal.pool.is_some() {
            inner.pool = self.journal.pool.clone();
            inner.endpoint = self.journal.endpoint.clone();
        }
        inner.tries += self.journal.tries;
        inner.upstream_time += self.journal.upstream_time;
        inner.filter_time += self.state.filter_time;
        inner.filter_wait += self.state.filter_wait;
        // That middleware did not want the response to its end is no failure.
        inner.reason = (self.journal.reason).filter(|&reason| reason != Reason::ClientGone);
    }

    /// Tells it which endpoint answers.
    pub(super) fn publish_endpoint(&self) {
        if let Kind::Behind(inner) = &self.kind {
            let mut inner = inner.borrow_mut();
            inner.pool = self.journal.pool.clone();
            inner.endpoint = self.journal.endpoint.clone();
        }
    }
}

/// One request of the middleware, from the filters behind it to the end of the response.
async fn serve(origin: Rc<Origin>, onward: Onward) {
    let Onward { request, reply } = onward;
    let (head, body) = request.into_parts();
    let mut side = Guest {
        body,
        ahead: None,
        done: false,
        trailers: None,
        reply,
    };
    let Ok(framing) = side.framing(&head).await else {
        return;
    };
    let mut fields = fields(&head.headers);
    forward::strip_hop_by_hop(&mut fields);
    fields.retain_lines(|name, _| !matches!(name, b"host" | b"content-length" | b"expect"));
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut request = RequestHead::new(
        origin.version,
        head.method.as_str().as_bytes(),
        &origin.received_authority,
        target.as_bytes(),
        fields,
    );
    request.set_asked_authority(&origin.asked_authority);
    let authority = head.uri.authority().map_or("", |name| name.as_str());
    if authority.as_bytes() != origin.authority || origin.authority != origin.asked_authority {
        request.set_authority(authority.as_bytes());
    }
    let timer = Timer::new();
    let incoming = Incoming {
        head: request,
        framing,
        expect_continue: false,
    };
    let arrived = Arrived {
        client: origin.client.clone(),
        id: Some(origin.id),
        hop: Hop {
            trailers: origin.trailers,
            ..Hop::default()
        },
    };
    let (service, connection) = (&origin.service, &origin.connection);
    let mut exchange = Exchange::of(service, connection, &timer, &mut side, incoming, arrived);
    exchange.kind = Kind::Behind(origin.inner.clone());
    exchange.state.route = origin.route.clone();
    exchange.journal.started = origin.started;
    let ending = exchange.phases().await;
    exchange.ended = true;
    if matches!(ending, Ending::Drop | Ending::Reset) {
        origin.inner.borrow_mut().cut = exchange.journal.reason;
    }
}

/// The client of such an exchange: the guest.
struct Guest {
    body: OnwardBody,
    /// Was read to see whether there is a body at all.
    ahead: Option<Bytes>,
    done: bool,
    trailers: Option<Fields>,
    reply: OnwardReply,
}

impl Guest {
    /// How the body is framed. A guest does not say that there is none: for methods that mostly have none, it is looked.
    async fn framing(&mut self, head: &http::request::Parts) -> Result<Framing, Reason> {
        if let Some(length) = head.headers.get(http::header::CONTENT_LENGTH) {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            return length.map(Framing::Length).ok_or(Reason::BadRequest);
        }
        if self.body.is_empty() {
            self.done = true;
        } else if !matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") {
            match poll_fn(|cx| self.body.poll_piece(cx)).await {
                Ok(Piece::Data(data)) => self.ahead = Some(data),
                Ok(Piece::Trailers(lines)) => self.trailers = Some(fields(&lines)),
                Ok(Piece::End) => self.done = true,
                Err(_) => return Err(Reason::ClientGone),
            }
        }
        Ok(match self.done {
            true if matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") => Framing::Length(0),
            true => Framing::None,
            false => Framing::Chunked,
        })
    }
}

impl ClientSide for Guest {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, BodyError>> {
        while !self.done {
            let piece = match self.ahead.take() {
                Some(data) => Ok(Piece::Data(data)),
                None => ready!(self.body.poll_piece(cx)),
            };
            match piece {
                Ok(Piece::Data(data)) if data.is_empty() => {}
                Ok(Piece::Data(data)) => {
                    take(cx, &data);
                    return Poll::Ready(Ok(Pulled::Data(data.len())));
                }
                Ok(Piece::Trailers(lines)) => self.trailers = Some(fields(&lines)),
                Ok(Piece::End) => self.done = true,
                Err(_) => return Poll::Ready(Err(BodyError::Truncated(None))),
            }
        }
        Poll::Ready(Ok(Pulled::End))
    }

    fn body_done(&self) -> bool {
        self.done
    }

    fn body_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_gone(cx)
    }

    /// `wasi:http` has none.
    fn send_informational(&mut self, _: &ResponseHead) {}

    fn send_head(&mut self, head: ResponseHead, body: ResponseBody, _: Option<&[u8]>) {
        let mut response = http::Response::new(());
        // Statuses were checked when they came: three digits, which is what the type takes.
        if let Ok(status) = http::StatusCode::from_u16(head.status) {
            *response.status_mut() = status;
        }
        *response.headers_mut() = header_map(&head.fields);
        if let ResponseBody::Length(length) = body {
            let headers = response.headers_mut();
            headers.insert(http::header::CONTENT_LENGTH, length.into());
        }
        let bodiless = matches!(body, ResponseBody::None | ResponseBody::Empty);
        self.reply.send_head(response, bodiless);
    }

    fn send_data(&mut self, _: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        let queued = self.reply.queue(data);
        queued.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn send_end(&mut self, trailers: Option<Fields>) {
        self.reply.end(trailers.as_ref().map(header_map));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reply.poll_taken(cx).map(Ok)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
