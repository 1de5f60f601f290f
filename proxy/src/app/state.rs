//! The process as the admin interface sees it.

use crate::admin::{self, Readiness, ReloadAnswer};
use crate::telemetry::{Exposition, Metrics};
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What the admin interface may look at and ask for.
pub struct State {
    pub readiness: Cell<Readiness>,
    pub metrics: Arc<Metrics>,
    pub reloads: mpsc::UnboundedSender<oneshot::Sender<ReloadAnswer>>,
}

impl admin::Process for State {
    fn readiness(&self) -> Readiness {
        self.readiness.get()
    }

    fn metrics(&self, format: Exposition) -> String {
        self.metrics.expose_as(format)
    }

    fn reload(&self) -> futures_util::future::LocalBoxFuture<'static, ReloadAnswer> {
        let (reply, answer) = oneshot::channel();
        let asked = self.reloads.send(reply).is_ok();
        Box::pin(async move {
            let ending =
                || ReloadAnswer::refused(0, serde_json::json!([]), "the server is ending\n".into());
            if !asked {
                return ending();
            }
            answer.await.unwrap_or_else(|_| ending())
        })
    }
}
