//! A filter's plan, checked: what the worker reads on every exchange.

use crate::config::{ConfigPath, Problem, quoted};
use crate::head::is_token;
use crate::wasm::{
    BodyMode, Effects, Interest, Module, Phase, Phases, Plan, PoolUse, Rules, ShownFacts,
    ShownFields,
};

use super::predicate::Predicate;
use super::problem::{problem, setting};

/// First bytes a stream filter may ask for.
pub const FIRST_BYTES_MAX: u32 = 16 * 1024;
const NAMES_MAX: usize = 256;
const POOLS_MAX: usize = 4096;
/// Bytes of a body that a filter may ask for: to decide by, and as a whole.
const BODY_FIRST_MAX: u32 = 1024 * 1024;
const BODY_WHOLE_MAX: u32 = 64 * 1024 * 1024;
const TICK_MS_MIN: u32 = 100;

/// What of a plan is in force.
#[derive(Debug, Clone)]
pub struct CheckedPlan {
    pub predicate: Predicate,
    pub request_fields: ShownFields,
    pub response_fields: ShownFields,
    pub pools: Box<[PoolUse]>,
    /// 0 unless the first bytes are wanted.
    pub first_bytes: usize,
    pub facts: ShownFacts,
    /// Skip unless the phase is wanted.
    pub request_body: BodyMode,
    pub response_body: BodyMode,
    pub effects: Effects,
    /// 0 unless ticks are wanted.
    pub tick_ms: u32,
    wanted: [bool; Phase::ALL.len()],
    /// What may be answered in each phase.
    rules: [Rules; Phase::ALL.len()],
}

impl CheckedPlan {
    /// `at` is the filter's place. A plan that breaks the contract is the filter's mistake; the problem says so.
    pub(super) fn check(
        plan: Plan,
        module: &Module,
        at: &ConfigPath,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut broken = |what: String| {
            let message = format!("what the filter asks of the proxy cannot be had: {what}");
            problems.push(
                problem(setting(at, ""), "invalid-plan", message)
                    .help("this is a mistake in the filter; tell its author"),
            );
        };
        let predicate = Predicate::compile(&plan.matching).unwrap_or_else(|error| {
            broken(format!("match: {error}"));
            Predicate::default()
        });
        for (what, interest) in [
            ("request-fields", &plan.request_fields),
            ("response-fields", &plan.response_fields),
        ] {
            if let Interest::Some(names) = interest {
                if names.len() > NAMES_MAX {
                    broken(format!(
                        "{what}: {} names, and at most {NAMES_MAX} can be",
                        names.len()
                    ));
                }
                if let Some(name) = names.iter().find(|name| !is_token(name.as_bytes())) {
                    broken(format!("{what}: {} is not a header name", quoted(name)));
                }
            }
        }
        if plan.pools.len() > POOLS_MAX {
            broken(format!(
                "{} pools, and at most {POOLS_MAX} can be",
                plan.pools.len()
            ));
        }
        if plan.first_bytes > FIRST_BYTES_MAX {
            broken(format!(
                "first-bytes: {} bytes, and at most {FIRST_BYTES_MAX} can be",
                plan.first_bytes
            ));
        }
        for (what, mode) in [
            ("request-body", plan.request_body),
            ("response-body", plan.response_body),
        ] {
            let (bytes, max) = match mode {
                BodyMode::First(bytes) => (bytes, BODY_FIRST_MAX),
                BodyMode::Whole(whole) => (whole.max, BODY_WHOLE_MAX),
                BodyMode::Skip | BodyMode::Watch | BodyMode::Transform => continue,
            };
            if !(1..=max).contains(&bytes) {
                broken(format!("{what}: {bytes} bytes, and 1 to {max} can be"));
            }
        }
        if plan.tick_ms != 0 && plan.tick_ms < TICK_MS_MIN {
            broken(format!(
                "tick-ms: {}, and {TICK_MS_MIN} at least can be",
                plan.tick_ms
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let wanted = Phase::ALL
            .map(|phase| plan.phases.contains(flag(phase)) && module.phase(phase).is_some());
        let body = |phase: Phase, mode: BodyMode| match wanted[phase as usize] {
            true => mode,
            false => BodyMode::Skip,
        };
        let request_body = body(Phase::RequestBody, plan.request_body);
        let response_body = body(Phase::ResponseBody, plan.response_body);
        let called: Box<[bool]> = plan.pools.iter().map(|pool| pool.called).collect();
        let rules = Phase::ALL.map(|phase| Rules {
            phase,
            called: called.clone(),
            effects: plan.effects,
            body: match phase {
                Phase::RequestBody => request_body,
                Phase::ResponseBody => response_body,
                _ => BodyMode::Skip,
            },
        });
        Ok(Self {
            predicate,
            request_fields: ShownFields::new(&plan.request_fields),
            response_fields: ShownFields::new(&plan.response_fields),
            pools: plan.pools.into(),
            first_bytes: if wanted[Phase::FirstBytes as usize] {
                (plan.first_bytes as usize).max(1)
            } else {
                0
            },
            facts: ShownFacts::new(plan.facts),
            request_body,
            response_body,
            effects: plan.effects,
            tick_ms: if wanted[Phase::Tick as usize] {
                plan.tick_ms
            } else {
                0
            },
            wanted,
            rules,
        })
    }

    /// The phase is wanted with these settings, and exported.
    #[inline]
    pub fn wants(&self, phase: Phase) -> bool {
        self.wanted[phase as usize]
    }

    /// What may be answered in this phase.
    #[inline]
    pub fn rules(&self, phase: Phase) -> &Rules {
        &self.rules[phase as usize]
    }
}

fn flag(phase: Phase) -> Phases {
    match phase {
        Phase::Request => Phases::REQUEST,
        Phase::Response => Phases::RESPONSE,
        Phase::Log => Phases::LOG,
        Phase::Connect => Phases::CONNECT,
        Phase::ClientHello => Phases::CLIENT_HELLO,
        Phase::FirstBytes => Phases::FIRST_BYTES,
        Phase::RequestBody => Phases::REQUEST_BODY,
        Phase::ResponseBody => Phases::RESPONSE_BODY,
        Phase::RequestTrailers => Phases::REQUEST_TRAILERS,
        Phase::ResponseTrailers => Phases::RESPONSE_TRAILERS,
        Phase::ClientData => Phases::CLIENT_DATA,
        Phase::ServerData => Phases::SERVER_DATA,
        Phase::Tick => Phases::TICK,
    }
}
