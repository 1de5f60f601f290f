//! A body on its way into a handler: one piece at a time, from an exchange's hands into the guest's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame};
use wasmtime_wasi_http::Error;

/// The exchange's end. Holds what was queued until the guest asks for it; when the guest has let go of the body,
/// what is queued is dropped.
pub(super) struct Upload(Arc<Mutex<Slot>>);

/// The guest's end.
pub(super) struct UploadBody(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The exchange has let go of it.
    left: bool,
    let_go: bool,
    /// The guest, that waits for data.
    waiting: Option<Waker>,
    /// The exchange, that waits until there is room for more.
    queuing: Option<Waker>,
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both ends of a body; `ended` for one that has nothing.
pub(super) fn upload(ended: bool) -> (Upload, UploadBody) {
    let slot = Arc::new(Mutex::new(Slot {
        ended,
        ..Slot::default()
    }));
    (Upload(slot.clone()), UploadBody(slot))
}

impl Upload {
    pub(super) fn queue(&self, data: &[u8]) {
        let mut slot = lock(&self.0);
        if !slot.let_go {
            slot.data.extend_from_slice(data);
            slot.wake();
        }
    }

    pub(super) fn end(&self, trailers: Option<HeaderMap>) {
        let mut slot = lock(&self.0);
        slot.ended = true;
        slot.trailers = trailers;
        slot.wake();
    }

    pub(super) fn is_taken(&self) -> bool {
        lock(&self.0).data.is_empty()
    }

    /// Ready when the guest has what was queued, or let go of the body. It may take it in any poll of its own, so that
    /// whoever waits here is woken.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = lock(&self.0);
        if slot.data.is_empty() {
            return Poll::Ready(());
        }
        slot.queuing = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The guest does not want the body, or what is left of it.
    pub(super) fn is_let_go(&self) -> bool {
        lock(&self.0).let_go
    }

    pub(super) fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = lock(&self.0);
        if slot.let_go {
            return Poll::Ready(());
        }
        slot.queuing = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Slot {
    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn wake_exchange(&mut self) {
        if let Some(waker) = self.queuing.take() {
            waker.wake();
        }
    }
}

/// A body that ends before its end, for whatever reason, is an error and never looks whole.
impl Drop for Upload {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.left = true;
        slot.wake();
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut slot = lock(&self.0);
        if !slot.data.is_empty() {
            let data = slot.data.split().freeze();
            slot.wake_exchange();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if slot.ended {
            let trailers = slot.trailers.take();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if slot.left {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        }
        slot.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let slot = lock(&self.0);
        slot.ended && slot.data.is_empty() && slot.trailers.is_none()
    }
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.let_go = true;
        slot.data = BytesMut::new();
        slot.wake_exchange();
    }
}
