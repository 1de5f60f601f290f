//! What of a worker a drain ends, and when.

use super::{DrainPlan, Worker};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Something that waits and wants to know when the drain begins.
pub struct Idle {
    worker: Rc<Worker>,
    key: Option<usize>,
}

impl Idle {
    /// Ready once the worker drains.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.worker.is_draining() {
            return Poll::Ready(());
        }
        let mut waiting = self.worker.waiting.borrow_mut();
        match self.key {
            None => self.key = Some(waiting.insert(Some(cx.waker().clone()))),
            Some(key) => match &mut waiting[key] {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            },
        }
        Poll::Pending
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.worker.waiting.borrow_mut().remove(key);
        }
    }
}

/// When a tunnel must end, once the worker drains.
pub struct DrainWindow {
    idle: Idle,
    cut: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl DrainWindow {
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.is_none() {
            std::task::ready!(self.idle.poll_drain(cx));
            let Some(plan) = self.idle.worker.drain.get() else {
                return Poll::Pending;
            };
            let at = plan.began + plan.window.mul_f64(fastrand::f64());
            self.cut = Some(Box::pin(tokio::time::sleep_until(at.into())));
        }
        match &mut self.cut {
            Some(cut) => cut.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Worker {
    pub fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Connections that wait for work end now; those at work end after it; tunnels end somewhere within `window`.
    pub fn begin_drain(&self, window: Duration) {
        self.drain.set(Some(DrainPlan {
            window,
            began: Instant::now(),
        }));
        for (_, waker) in self.waiting.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// A place among those that a drain wakes.
    pub fn idle(self: &Rc<Self>) -> Idle {
        Idle {
            worker: self.clone(),
            key: None,
        }
    }

    /// For a tunnel: its own random moment within the drain's window, so that not all clients come back at once.
    pub fn drain_window(self: &Rc<Self>) -> DrainWindow {
        DrainWindow {
            idle: self.idle(),
            cut: None,
        }
    }
}
