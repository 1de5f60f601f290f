//! The filters of a listener one after another, each a chain of its own, so that what each did can be seen.

use std::sync::Arc;

use crate::chain::{Chain, ExchangeState, Filter, Route, Slots, VerdictKind};
use crate::config::OnError;
use crate::generation::{Generation, Listener};
use crate::wasm::FaultKind;

use super::{Change, Step, Verdict};

/// The way through a listener's filters.
pub(super) struct Walk {
    pub(super) members: Vec<Walker>,
    pub(super) route: Route,
    pub(super) chosen: Chosen,
    // Slots are remembered weakly by it, and a filter that is used twice has one.
    _slots: Slots,
}

/// Who had the last word on a part of the route.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) pool: Option<String>,
    pub(super) key: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// One filter on that way.
pub(super) struct Walker {
    pub(super) filter: Arc<Filter>,
    pub(super) chain: Chain,
    state: ExchangeState,
    /// Its predicate matched in the request phase: it is called in later phases too.
    pub(super) matched: bool,
}

/// What a filter's counters show of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Said(VerdictKind),
    Failed(FaultKind),
}

impl Walk {
    pub(super) fn new(generation: &Generation, listener: &Listener) -> Self {
        let slots = Slots::new(0);
        let members = generation
            .links(listener, &slots)
            .into_iter()
            .map(|link| Walker {
                filter: link.slot.filter().clone(),
                chain: Chain::new(vec![link]),
                state: ExchangeState::default(),
                matched: false,
            })
            .collect();
        Self {
            members,
            route: Route::default(),
            chosen: Chosen::default(),
            _slots: slots,
        }
    }
}

impl Chosen {
    /// Takes down that `filter` made the route `after` of `before`.
    pub(super) fn note(&mut self, filter: &Filter, before: &Route, after: &Route) {
        let name = || Some(filter.name().to_string());
        if before.pool != after.pool {
            self.pool = name();
        }
        if before.sticky_key != after.sticky_key {
            self.key = name();
        }
        if before.endpoint != after.endpoint {
            self.endpoint = name();
        }
    }
}

impl Walker {
    /// Runs a phase of this filter alone, with the route as the filters before left it.
    pub(super) fn run<T>(
        &mut self,
        route: &mut Route,
        phase: impl FnOnce(&Chain, &mut ExchangeState) -> T,
    ) -> (T, Seen) {
        let before = self.filter.counts();
        self.state.route = std::mem::take(route);
        let outcome = phase(&self.chain, &mut self.state);
        *route = std::mem::take(&mut self.state.route);
        let after = self.filter.counts();
        let fault = FaultKind::ALL
            .into_iter()
            .find(|&kind| after.faults(kind) > before.faults(kind));
        let said = VerdictKind::ALL
            .into_iter()
            .find(|&kind| after.verdicts(kind) > before.verdicts(kind));
        let seen = match (fault, said) {
            (Some(kind), _) => Seen::Failed(kind),
            (None, Some(kind)) => Seen::Said(kind),
            (None, None) => Seen::Nothing,
        };
        (outcome, seen)
    }

    /// `why_not` tells why it was not called, if it was not.
    pub(super) fn step(
        &self,
        phase: &'static str,
        seen: Seen,
        changes: Vec<Change>,
        why_not: impl FnOnce() -> String,
    ) -> Step {
        let (verdict, because) = match seen {
            Seen::Nothing => (Verdict::NotCalled, Some(why_not())),
            Seen::Said(VerdictKind::Next | VerdictKind::Edit) => (Verdict::Next, None),
            Seen::Said(VerdictKind::Reply) => (Verdict::Reply, None),
            Seen::Said(VerdictKind::Drop) => (Verdict::Drop, None),
            Seen::Said(VerdictKind::Reset) => (Verdict::Reset, None),
            Seen::Said(VerdictKind::Suspend) => (Verdict::Suspend, None),
            Seen::Failed(kind) => {
                let verdict = match self.filter.config().on_error {
                    OnError::Fail => Verdict::Fault,
                    OnError::Bypass => Verdict::FaultBypassed,
                };
                (verdict, Some(kind.as_str().to_owned()))
            }
        };
        Step {
            phase,
            filter: Some(self.filter.name().to_string()),
            verdict: Some(verdict),
            because,
            changes,
        }
    }
}
