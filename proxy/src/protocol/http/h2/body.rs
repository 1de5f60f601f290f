//! The body of a request on its way from the h2 crate to its exchange.

use crate::protocol::http::h1::body::Taker;
use bytes::BytesMut;
use h2::RecvStream;
use hyper::HeaderMap;
use std::task::{Context, Poll, ready};

/// What comes of a request's body, until it has ended.
///
/// The crate buffers frame by frame and ends a connection that has thousands of small ones waiting, which is what a stream
/// of small messages does when its endpoint is slow. So what waits is collected here, without what each frame costs. The
/// stream's window, which opens only when data is taken, bounds it.
pub(super) struct RequestBody {
    stream: Option<RecvStream>,
    ahead: BytesMut,
    /// All that has arrived was asked for: the crate will wake the task for more.
    drained: bool,
}

impl RequestBody {
    pub(super) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self {
            stream: (!ended).then_some(stream),
            ahead: BytesMut::new(),
            drained: false,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stream.is_none()
    }

    /// The rest of it, for whoever wants nothing of it but its end.
    pub(super) fn take(&mut self) -> Option<RecvStream> {
        let mut stream = self.stream.take()?;
        let _ = stream.flow_control().release_capacity(self.ahead.len());
        Some(stream)
    }

    /// Gives the next data to `take`. Zero: there is no more.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<usize, h2::Error>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(0));
        };
        if !self.ahead.is_empty() {
            let data = self.ahead.split();
            // Fails only for a stream that is over.
            let _ = stream.flow_control().release_capacity(data.len());
            take(cx, &data);
            return Poll::Ready(Ok(data.len()));
        }
        loop {
            match stream.poll_data(cx) {
                Poll::Pending => {
                    self.drained = true;
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(Ok(0)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(data))) => {
                    let _ = stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        take(cx, &data);
                        return Poll::Ready(Ok(data.len()));
                    }
                }
            }
        }
    }

    /// What came behind the data, which has ended. Then all of it has.
    pub(super) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(None));
        };
        let trailers = ready!(stream.poll_trailers(cx))?;
        self.stream = None;
        Poll::Ready(Ok(trailers))
    }

    /// Collects what has arrived and nobody has asked for since the last call.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.drained) {
            return;
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        // An error is met again by whoever asks.
        while let Poll::Ready(Some(Ok(data))) = stream.poll_data(cx) {
            self.ahead.extend_from_slice(&data);
        }
    }
}
