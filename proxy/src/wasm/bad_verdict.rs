//! Why what a filter answered is no verdict, in words that its author can use.

/// Effects of one suspended call.
pub const EFFECTS_MAX: usize = 16;
/// Operations of one verdict: applying them is the worker's time, not the guest's.
pub(super) const OPERATIONS_MAX: usize = 1024;

/// What becomes of the exchange or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Next,
    Reply,
    Drop,
    Reset,
    /// Perform effects, then resume.
    Suspend,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Next => "next",
            Kind::Reply => "reply",
            Kind::Drop => "drop",
            Kind::Reset => "reset",
            Kind::Suspend => "suspend",
        }
    }
}

/// Why a verdict is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVerdict {
    #[error("unknown verdict {0}")]
    UnknownVerdict(u8),
    #[error("verdict {} is not allowed in this phase", .0.as_str())]
    VerdictNotAllowed(Kind),
    #[error("unknown operation {0}")]
    UnknownOperation(u8),
    #[error("operation {code} ({name}) is not allowed in this phase{why}", code = .0, name = named(*.0), why = in_bodies(*.0))]
    OperationNotAllowed(u8),
    #[error("an operation runs over the end of the block")]
    Overrun,
    #[error("more than {OPERATIONS_MAX} operations")]
    TooMany,
    #[error("the head would be too large")]
    HeadTooLarge,
    #[error("{0:?} is not a header name")]
    Name(String),
    #[error("the header {0:?} is the proxy's to write")]
    HostOwned(String),
    #[error("the value of the header {0:?} holds a control character")]
    Value(String),
    #[error("operation {code} ({name}) has a value that it cannot have{wanted}", code = .0, name = named(*.0), wanted = wanted(*.0))]
    Argument(u8),
    #[error("status {0} is not in 200 to 999")]
    Status(u16),
    #[error("pool number {index}, of {pools} that its plan names")]
    Pool { index: usize, pools: usize },
    #[error("pool number {0} is called, which its plan does not announce")]
    NotCalled(usize),
    #[error(
        "the effect {0} is not announced by its plan, as `Setup::uses_store` and `Setup::called_pool` of the SDK do"
    )]
    NotAnnounced(&'static str),
    #[error("it suspends without an effect")]
    NoEffect,
    #[error("more than {EFFECTS_MAX} effects at one time")]
    TooManyEffects,
}

/// What an operation is called in PACKED.md.
fn named(code: u8) -> &'static str {
    match code {
        1 => "set field",
        2 => "append field",
        3 => "add field",
        4 => "remove field",
        16 => "path",
        17 => "authority",
        32 => "pool",
        33 => "sticky key",
        34 => "endpoint",
        35 => "timeout of a try",
        36 => "timeout of the exchange",
        37 => "retries",
        48 => "status",
        49 => "body",
        50 => "skip the request's body",
        51 => "skip the response's body",
        64 => "state",
        65 => "token",
        80..=88 => "effect",
        _ => "unknown",
    }
}

/// Why it may be, where phases alone do not tell.
fn in_bodies(code: u8) -> &'static str {
    match code {
        49 => "; a body that is only watched cannot be replaced",
        1..=4 | 16..=48 => "; of a body that passes, the head has been sent",
        _ => "",
    }
}

/// What a value has to be.
fn wanted(code: u8) -> &'static str {
    match code {
        16 => ": visible ASCII that begins with `/`, without `#`",
        17 => ": a host, with or without a port",
        33 => ": 1 to 1024 bytes",
        34 => ": address:port",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::BadVerdict;

    #[test]
    fn operations_are_told_by_name_and_with_what_they_take() {
        let told = |bad: BadVerdict| bad.to_string();
        assert_eq!(
            told(BadVerdict::OperationNotAllowed(49)),
            "operation 49 (body) is not allowed in this phase; a body that is only watched cannot be replaced"
        );
        assert_eq!(
            told(BadVerdict::OperationNotAllowed(64)),
            "operation 64 (state) is not allowed in this phase"
        );
        assert_eq!(
            told(BadVerdict::Argument(34)),
            "operation 34 (endpoint) has a value that it cannot have: address:port"
        );
    }
}
