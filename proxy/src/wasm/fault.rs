//! How a guest fails, and how wasmtime's errors are told apart.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};

use super::hostcalls::TooManyHostCalls;
use super::words::tamed;

/// Bytes of a message and of a backtrace: the names in them are the module's, and as long as it likes.
const MESSAGE_BYTES_MAX: usize = 1024;
const BACKTRACE_BYTES_MAX: usize = 8 * 1024;

/// What a guest did wrong. Counted by kind, so the set is small and fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It trapped: a panic, an access out of bounds, a stack overflow.
    Trap,
    /// It ran longer than its deadline.
    Deadline,
    /// It wanted more memory than its limit.
    Memory,
    /// It answered with more bytes than its limit.
    Output,
    /// What it answered is no valid verdict.
    Verdict,
    /// It called the host more often than its limit.
    HostCalls,
    /// The body is larger than it takes, which its plan wants to be a fault.
    Body,
    /// No instance could be made, or the one that a suspended call waits in is gone.
    Instance,
    /// More calls are suspended at one time, or one is more often, than may be.
    Suspends,
    /// Not called: its processor time is spent.
    Cpu,
    /// Not called: it failed too often.
    Backoff,
}

impl FaultKind {
    pub const ALL: [FaultKind; 11] = [
        FaultKind::Trap,
        FaultKind::Deadline,
        FaultKind::Memory,
        FaultKind::Output,
        FaultKind::Verdict,
        FaultKind::HostCalls,
        FaultKind::Body,
        FaultKind::Instance,
        FaultKind::Cpu,
        FaultKind::Backoff,
        FaultKind::Suspends,
    ];

    /// The filter was let alone on purpose: its policy was applied without a call. Counted apart from failures.
    pub fn is_uncalled(self) -> bool {
        matches!(self, FaultKind::Cpu | FaultKind::Backoff)
    }

    /// The word logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Trap => "trap",
            FaultKind::Deadline => "deadline",
            FaultKind::Memory => "memory",
            FaultKind::Output => "output",
            FaultKind::Verdict => "verdict",
            FaultKind::HostCalls => "host-calls",
            FaultKind::Body => "body",
            FaultKind::Instance => "instance",
            FaultKind::Cpu => "cpu",
            FaultKind::Backoff => "backoff",
            FaultKind::Suspends => "suspends",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed call. The instance it came from must not be called again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// One line for a person.
    pub message: String,
    /// The guest's frames, innermost first, when it trapped.
    pub backtrace: Option<String>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            backtrace: None,
        }
    }

    /// Names the failure of a call. `memory_refused` says that the guest was denied memory during it: a guest's
    /// allocator then ends in a trap that looks like any other.
    pub(super) fn from_call(error: &wasmtime::Error, memory_refused: bool) -> Self {
        let trap = error.downcast_ref::<Trap>();
        let frames = error.downcast_ref::<WasmBacktrace>();
        let cause = tamed(&error.root_cause(), MESSAGE_BYTES_MAX);
        let kind = if trap == Some(&Trap::Interrupt) {
            FaultKind::Deadline
        } else if error.is::<TooManyHostCalls>() {
            FaultKind::HostCalls
        } else if memory_refused {
            FaultKind::Memory
        } else if is_output_limit(&cause) {
            FaultKind::Output
        } else if trap.is_some() || frames.is_some() {
            FaultKind::Trap
        } else {
            // Neither a trap nor a guest frame: what came back breaks the canonical ABI.
            FaultKind::Verdict
        };
        let message = match kind {
            FaultKind::Deadline => "ran longer than its deadline".to_owned(),
            FaultKind::Memory => "wanted more memory than its limit".to_owned(),
            FaultKind::Output => "answered with more bytes than its limit".to_owned(),
            _ => cause,
        };
        Self {
            kind,
            message,
            backtrace: backtrace(frames),
        }
    }

    /// Names the failure of making an instance: the start function of the module runs, and its data is put into memory.
    pub(super) fn from_start(error: &wasmtime::Error) -> Self {
        let trap = error.downcast_ref::<Trap>();
        let frames = error.downcast_ref::<WasmBacktrace>();
        let (kind, message) = if trap == Some(&Trap::Interrupt) {
            let message = "starting it took longer than its deadline".to_owned();
            (FaultKind::Deadline, message)
        } else if trap.is_some() || frames.is_some() {
            let cause = tamed(&error.root_cause(), MESSAGE_BYTES_MAX);
            (FaultKind::Trap, format!("starting it: {cause}"))
        } else {
            let cause = tamed(&format_args!("{error:#}"), MESSAGE_BYTES_MAX);
            let message = format!("cannot be instantiated: {cause}");
            (FaultKind::Instance, message)
        };
        Self {
            kind,
            message,
            backtrace: backtrace(frames),
        }
    }
}

fn backtrace(frames: Option<&WasmBacktrace>) -> Option<String> {
    let frames = frames.filter(|b| !b.frames().is_empty())?;
    Some(tamed(frames, BACKTRACE_BYTES_MAX))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Fault {}

/// wasmtime keeps the type of this error to itself; a test holds that the text stays recognised.
fn is_output_limit(cause: &str) -> bool {
    cause.contains("fuel allocated for hostcalls")
}

/// The message of an answer that is larger than it may be.
pub(super) fn too_much(length: usize, max: usize) -> String {
    format!("answered with {length} bytes, more than the {max} of its `limits.output`")
}
