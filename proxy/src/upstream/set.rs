//! A pool's endpoints at one moment: immutable, read by every pick, replaced as a whole when anything changes.

use std::sync::{Arc, OnceLock};

use super::balance::{Maglev, interleave};
use super::endpoint::{Endpoint, Operator};
use super::health::Verdict;
use crate::config::Panic;

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
    /// At most [`super::roster::MEMBERS_MAX`], so that an index fits `u16`.
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
    /// For each member: whether a client that names it may have it.
    welcome: Box<[bool]>,
    /// For each member: whether it is in `eligible`.
    usable: Box<[bool]>,
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
    /// The set for `roster` as its endpoints stand now; none when `before` (of the same roster) says the same.
    pub fn build(
        roster: &Roster,
        admission: Admission,
        before: Option<&EndpointSet>,
    ) -> Option<Self> {
        let members = &*roster.members;
        let sound: Vec<Soundness> = members.iter().map(|m| admission.soundness(m)).collect();
        // Fewer scruples until somebody is left: first the sound, then those no check has decided about, and in a
        // panic everybody whom the operator allows.
        let open = |m: &Member| m.weight > 0 && m.endpoint.operator() == Operator::Enabled;
        let tiers: &[Soundness] = match admission.panic {
            Panic::Fail => &[Soundness::Sound, Soundness::Unknown],
            Panic::Spread => &[Soundness::Sound, Soundness::Unknown, Soundness::Unsound],
        };
        let mut floor = Soundness::Sound;
        let mut usable: Box<[bool]> = Box::default();
        for &tier in tiers {
            floor = tier;
            usable = (members.iter().zip(&sound))
                .map(|(m, &s)| open(m) && s <= tier)
                .collect();
            if usable.contains(&true) {
                break;
            }
        }
        let welcome: Box<[bool]> = (members.iter().zip(&sound))
            .map(|(m, &s)| m.endpoint.operator() != Operator::Disabled && s <= floor)
            .collect();
        if let Some(before) = before
            && before.usable == usable
            && before.welcome == welcome
        {
            return None;
        }
        let turns: Vec<(u16, u32)> = (0u16..)
            .zip(members)
            .zip(&usable)
            .filter_map(|((i, m), &usable)| usable.then_some((i, m.weight)))
            .collect();
        let by_text = match before {
            Some(before) => Arc::clone(&before.by_text),
            None => sort_by_text(members),
        };
        Some(Self {
            roster: roster.clone(),
            eligible: turns.iter().map(|&(i, _)| i).collect(),
            schedule: interleave(&turns),
            welcome,
            usable,
            by_text,
        })
    }

    pub fn member(&self, index: u16) -> Option<&Member> {
        self.roster.members.get(usize::from(index))
    }

    pub fn is_usable(&self, index: u16) -> bool {
        self.usable.get(usize::from(index)) == Some(&true)
    }

    /// The member named `text` (`ip:port`), when clients that name it may have it.
    pub fn welcome(&self, text: &str) -> Option<u16> {
        let name = |&i: &u16| self.member(i).map_or("", |m| &*m.endpoint.text);
        let found = self.by_text.binary_search_by(|i| name(i).cmp(text)).ok()?;
        let index = *self.by_text.get(found)?;
        (self.welcome.get(usize::from(index)) == Some(&true)).then_some(index)
    }
}

/// From best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Soundness {
    Sound,
    Unknown,
    Unsound,
}

impl Admission {
    fn soundness(self, member: &Member) -> Soundness {
        let standing = &member.endpoint.standing;
        if self.checked {
            match standing.verdict() {
                Verdict::Up => Soundness::Sound,
                Verdict::Unknown => Soundness::Unknown,
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
