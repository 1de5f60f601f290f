//! How a pool stands, for people and metrics.

use std::sync::Arc;
use std::time::SystemTime;

use super::endpoint::{AdminState, Endpoint};
use super::health::Verdict;
use super::pool::Pool;

/// How an endpoint stands in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// In use; there are no checks.
    Unchecked,
    /// The first check is still out.
    Checking,
    Up,
    Down,
    /// Its checks pass, but exchanges fail: out until checks have passed again.
    Doubted,
    /// Out for a time, because exchanges failed.
    Ejected,
    Draining,
    Disabled,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unchecked => "unchecked",
            State::Checking => "checking",
            State::Up => "up",
            State::Down => "down",
            State::Doubted => "doubted",
            State::Ejected => "ejected",
            State::Draining => "draining",
            State::Disabled => "disabled",
        }
    }
}

/// One endpoint as [`Pool::report`] shows it.
#[derive(Debug, Clone)]
pub struct EndpointReport {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub state: State,
    pub since: SystemTime,
    /// The last failure, even when it is over.
    pub error: Option<Arc<str>>,
}

impl Pool {
    /// How every endpoint stands now.
    pub fn report(&self) -> Vec<EndpointReport> {
        self.refresh();
        self.members()
            .iter()
            .map(|member| {
                let note = member.endpoint.note();
                EndpointReport {
                    endpoint: Arc::clone(&member.endpoint),
                    weight: member.weight,
                    state: self.state(&member.endpoint),
                    since: note.since,
                    error: note.error.clone(),
                }
            })
            .collect()
    }

    pub fn state(&self, endpoint: &Endpoint) -> State {
        match endpoint.admin_state() {
            AdminState::Draining => return State::Draining,
            AdminState::Disabled => return State::Disabled,
            AdminState::Enabled => {}
        }
        let ejected = endpoint.standing.ejected_until().is_some();
        match (self.config.check.is_some(), endpoint.verdict()) {
            (true, Verdict::Unknown) => State::Checking,
            (true, Verdict::Up) if endpoint.standing.is_doubted() => State::Doubted,
            (true, Verdict::Up) => State::Up,
            (true, Verdict::Down) => State::Down,
            (false, _) if ejected => State::Ejected,
            (false, _) => State::Unchecked,
        }
    }
}
