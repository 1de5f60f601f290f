//! Whether a request may be sent again after a try that failed.

use crate::error::Reason;

/// Why a try at an endpoint failed, and whether another may be made.
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) retry: Retry,
    /// What was asked for is to blame, not who answered.
    pub(super) is_answer: bool,
}

impl Failed {
    /// Nothing was sent, so that any request may go elsewhere; but not when the whole exchange is out of time.
    pub(super) fn to_connect(reason: Reason) -> Self {
        let retry = match reason {
            Reason::TotalTimeout => Retry::No,
            _ => Retry::Elsewhere,
        };
        Self {
            reason,
            retry,
            is_answer: false,
        }
    }

    /// Another endpoint would not help.
    pub(super) fn at_all(reason: Reason) -> Self {
        Self {
            reason,
            retry: Retry::No,
            is_answer: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    No,
    /// At another endpoint first.
    Elsewhere,
    /// The kept connection had died: at the same endpoint on a fresh connection.
    Fresh,
}

/// The connection did not come about: nothing of the request was sent.
pub(super) fn is_dialling(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::UpstreamTls
    )
}

/// Methods that may be repeated (RFC 9110 §9.2.2).
pub(super) fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
