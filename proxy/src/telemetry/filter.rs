//! What a worker counts of a filter: calls, their time, verdicts and faults.

use std::time::Duration;

use super::exposition::Visitor;
use super::shards::Shard;

const VERDICTS: [&str; 5] = ["next", "edit", "reply", "drop", "reset"];
/// Kinds of faults that are told apart; what else a caller names counts as `other`.
const FAULTS: [&str; 8] = [
    "trap", "deadline", "memory", "output", "invalid", "poisoned", "busy", "other",
];

// Where each counter of a filter lies.
const CALLS: usize = 0;
const TIME_NS: usize = 1;
const VERDICT: usize = 2;
const FAULT: usize = VERDICT + VERDICTS.len();
pub(super) const FILTER_CELLS: usize = FAULT + FAULTS.len();

/// A worker's counters of one filter. One per worker and filter; not shared between threads.
#[derive(Debug)]
pub struct FilterMetrics(pub(super) Shard<FILTER_CELLS>);

/// What a filter answered, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Next,
    Edit,
    Reply,
    Drop,
    Reset,
}

impl FilterMetrics {
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// One call of a phase that was answered.
    pub fn call(&self, time: Duration, verdict: Verdict) {
        self.time(time);
        self.0.add(VERDICT + verdict as usize, 1);
    }

    /// One call that failed; `kind` is a word of the fault's own, such as `trap`, `deadline`, `memory`, `output` or
    /// `invalid`; words that are not known here count as `other`.
    pub fn fault(&self, time: Duration, kind: &str) {
        self.time(time);
        let kind = FAULTS.iter().position(|&k| k == kind);
        self.0.add(FAULT + kind.unwrap_or(FAULTS.len() - 1), 1);
    }

    fn time(&self, time: Duration) {
        self.0.add(CALLS, 1);
        self.0
            .add(TIME_NS, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Adds every counted family about `filter`.
pub(super) fn visit_filter(visitor: &mut Visitor, filter: &str, sums: &[u64; FILTER_CELLS]) {
    let only = &[("filter", filter)];
    visitor.counter(
        "sluicegate_filter_calls",
        "Calls into the filter",
        only,
        sums[CALLS],
    );
    visitor.seconds(
        "sluicegate_filter_seconds",
        "Time spent in calls into the filter",
        only,
        sums[TIME_NS] as f64 / 1e9,
    );
    for (&verdict, &count) in VERDICTS.iter().zip(&sums[VERDICT..FAULT]) {
        visitor.counter(
            "sluicegate_filter_verdicts",
            "What the filter answered",
            &[("filter", filter), ("verdict", verdict)],
            count,
        );
    }
    for (&kind, &count) in FAULTS.iter().zip(&sums[FAULT..]) {
        visitor.counter(
            "sluicegate_filter_faults",
            "Calls that failed",
            &[("filter", filter), ("kind", kind)],
            count,
        );
    }
}
