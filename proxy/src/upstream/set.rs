//! A pool's endpoints at one moment: immutable, read by every pick, replaced as a whole when anything changes.

use std::sync::{Arc, OnceLock};

use super::balance::{Maglev, interleave};
use super::endpoint::{AdminState, Endpoint};
use super::health::Verdict;
use crate::config::Panic;

/// Endpoints of one pool at most; what names resolve to beyond is left out, with a warning.
pub const MEMBERS_MAX: usize = 16 * 1024;

/// An endpoint in a pool. The weight is the pool's, so that a reload that fails has changed nothing.
#[derive(Debug, Clone)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// 0 gets no new traffic, except from clients that name the endpoint.
    pub weight: u32,
}

/// The members and what depends on them alone, not on their health.
#[derive(Debug, Clone)]
pub(super) struct Roster {
    /// At most [`MEMBERS_MAX`], so that an index fits `u16`.
    pub members: Arc<[Member]>,
    /// Built when a sticky key first needs it.
    maglev: Arc<OnceLock<Maglev>>,
}

/// The roster and who of it may be picked.
#[derive(Debug)]
pub(super) struct EndpointSet {
    pub roster: Roster,
    /// Members that get new traffic, ascending.
    pub eligible: Box<[u16]>,
    /// A cycle of turns of the eligible.
    pub schedule: Box<[u16]>,
    open: Open,
    /// Members by `ip:port`, for hints.
    by_text: Arc<[u16]>,
}

/// What a pool's settings say about who may be picked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    /// Verdicts of checks count; without checks, ejections do.
    pub checked: bool,
    pub panic: Panic,
}

impl Roster {
    pub fn new(members: Vec<Member>) -> Self {
        Self {
            members: members.into(),
            maglev: Arc::default(),
        }
    }

    pub fn maglev(&self) -> &Maglev {
        self.maglev.get_or_init(|| {
            let members = (0..).zip(self.members.iter());
            Maglev::new(members.map(|(i, m)| (i, &*m.endpoint.text, m.weight)))
        })
    }

    pub fn has_maglev(&self) -> bool {
        self.maglev.get().is_some()
    }
}

impl EndpointSet {
    /// The set for `roster` as its endpoints stand now.
    pub fn new(roster: &Roster, admission: Admission) -> Self {
        let open = Open::judge(&roster.members, admission);
        Self::with(roster, open, sort_by_text(&roster.members))
    }

    /// The set for the same roster as its endpoints stand now; none when nothing has changed for picks.
    pub fn revised(&self, admission: Admission) -> Option<Self> {
        let open = Open::judge(&self.roster.members, admission);
        (open != self.open).then(|| Self::with(&self.roster, open, Arc::clone(&self.by_text)))
    }

    fn with(roster: &Roster, open: Open, by_text: Arc<[u16]>) -> Self {
        let turns: Vec<(u16, u32)> = (0u16..)
            .zip(&*roster.members)
            .zip(&open.to_all)
            .filter_map(|((i, m), &usable)| usable.then_some((i, m.weight)))
            .collect();
        Self {
            roster: roster.clone(),
            eligible: turns.iter().map(|&(i, _)| i).collect(),
            schedule: interleave(&turns),
            open,
            by_text,
        }
    }

    pub fn member(&self, index: u16) -> Option<&Member> {
        self.roster.members.get(usize::from(index))
    }

    /// Nobody is left but who was found unfit.
    pub fn is_lost(&self) -> bool {
        self.eligible.is_empty() || self.open.floor == Soundness::Unsound
    }

    /// Somebody is sound.
    pub fn is_sound(&self) -> bool {
        !self.is_lost() && self.open.floor == Soundness::Sound
    }

    pub fn is_usable(&self, index: u16) -> bool {
        self.open.to_all.get(usize::from(index)) == Some(&true)
    }

    /// The member named `text` (`ip:port`), when clients that name it may have it.
    pub fn welcome(&self, text: &str) -> Option<u16> {
        let name = |&i: &u16| self.member(i).map_or("", |m| &*m.endpoint.text);
        let found = self.by_text.binary_search_by(|i| name(i).cmp(text)).ok()?;
        let index = *self.by_text.get(found)?;
        (self.open.to_hints.get(usize::from(index)) == Some(&true)).then_some(index)
    }
}

/// For each member, who may have it.
#[derive(Debug, PartialEq, Eq)]
struct Open {
    /// The worst that may be used.
    floor: Soundness,
    /// All new traffic.
    to_all: Box<[bool]>,
    /// Clients that name it.
    to_hints: Box<[bool]>,
}

impl Open {
    /// Relaxes the criteria until somebody qualifies: first the sound; then the undecided, which no check has decided
    /// about, or checks hold up but exchanges fail, or were down and passed their last check; and in a panic any that
    /// the operator allows.
    fn judge(members: &[Member], admission: Admission) -> Self {
        let sound: Vec<Soundness> = members.iter().map(|m| admission.soundness(m)).collect();
        let up_to = |floor: Soundness, allowed: fn(&Member) -> bool| -> Box<[bool]> {
            let each = members.iter().zip(&sound);
            each.map(|(m, &s)| s <= floor && allowed(m)).collect()
        };
        let enabled: fn(&Member) -> bool =
            |m| m.weight > 0 && m.endpoint.admin_state() == AdminState::Enabled;
        let not_disabled: fn(&Member) -> bool =
            |m| m.endpoint.admin_state() != AdminState::Disabled;
        let mut floor = Soundness::Sound;
        let mut to_all = up_to(floor, enabled);
        let worst = match admission.panic {
            Panic::Fail => Soundness::Undecided,
            Panic::Spread => Soundness::Unsound,
        };
        while !to_all.contains(&true) && floor < worst {
            floor = floor.next();
            to_all = up_to(floor, enabled);
        }
        Self {
            floor,
            to_all,
            to_hints: up_to(floor, not_disabled),
        }
    }
}

/// From best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Soundness {
    Sound,
    Undecided,
    Unsound,
}

impl Soundness {
    fn next(self) -> Self {
        match self {
            Soundness::Sound => Soundness::Undecided,
            Soundness::Undecided | Soundness::Unsound => Soundness::Unsound,
        }
    }
}

impl Admission {
    fn soundness(self, member: &Member) -> Soundness {
        let standing = &member.endpoint.standing;
        if self.checked {
            match standing.verdict() {
                Verdict::Up if standing.is_doubted() => Soundness::Undecided,
                Verdict::Up => Soundness::Sound,
                Verdict::Unknown => Soundness::Undecided,
                Verdict::Down if standing.is_rising() => Soundness::Undecided,
                Verdict::Down => Soundness::Unsound,
            }
        } else if standing.ejected_until().is_some() {
            Soundness::Unsound
        } else {
            Soundness::Sound
        }
    }
}

fn sort_by_text(members: &[Member]) -> Arc<[u16]> {
    let mut order: Vec<(&str, u16)> = (members.iter().zip(0u16..))
        .map(|(m, i)| (&*m.endpoint.text, i))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, i)| i).collect()
}
