//! How an endpoint stands: the verdict of its checks, the failures of its exchanges, its ejection and its penalty.
//! All of it is atomics, so that workers and control write without waiting for each other.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::row::{Row, count};
use super::schedule::Schedule;

/// Doubts in a row beyond which they last no longer.
const DOUBTS_MAX: u32 = 10;

/// The first ejection lasts this long, the n-th n times as long.
const EJECTION_STEP: Duration = Duration::from_secs(10);
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Failures before an endpoint of a pool without checks is ejected; with checks `fall` counts instead.
pub const EJECTION_FALL: u32 = 3;

/// A failed exchange weighs like a running one and fades by half every two seconds: the load that it would have put
/// on the endpoint had it been served slowly instead of refused at once.
const PENALTY_HALF_LIFE_TICKS: u64 = 16;
/// Ticks of the penalty's clock: eighths of a second.
const PENALTY_TICK_MS: u64 = 125;
/// One exchange, in the fixed-point unit of penalties and loads.
pub const LOAD_UNIT: u64 = 16;

/// What the checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// No check has decided yet, or there are none.
    Unknown = 0,
    Up = 1,
    Down = 2,
}

/// A change of standing, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Up,
    Down,
}

/// Since when and why an endpoint stands as it does.
#[derive(Debug, Clone)]
pub struct Note {
    pub since: SystemTime,
    /// The last failure seen, even when the endpoint has recovered from it.
    pub error: Option<Arc<str>>,
}

#[derive(Debug)]
pub struct Standing {
    verdict: AtomicU8,
    /// Whether checks ever held it up.
    was_up: AtomicBool,
    check_successes: AtomicU32,
    check_failures: AtomicU32,
    row: Row,
    /// Exchanges failed too often, and checks have not settled yet what that means.
    doubted: AtomicBool,
    /// Times it went out of use, however that came about.
    downs: AtomicU64,
    /// When it is probed.
    pub schedule: Schedule,
    /// In the registry's milliseconds; 0 is not ejected.
    ejected_until: AtomicU64,
    /// When the last ejection or doubt ended.
    returned_at: AtomicU64,
    /// Ejections or doubts in a row: how far the time has grown.
    outs_in_row: AtomicU32,
    /// Ticks in the upper half, value in `LOAD_UNIT`s in the lower.
    penalty: AtomicU64,
    note: ArcSwap<Note>,
}

impl Standing {
    pub fn new() -> Self {
        Self {
            verdict: AtomicU8::new(Verdict::Unknown as u8),
            was_up: AtomicBool::new(false),
            check_successes: AtomicU32::new(0),
            check_failures: AtomicU32::new(0),
            row: Row::default(),
            doubted: AtomicBool::new(false),
            downs: AtomicU64::new(0),
            schedule: Schedule::default(),
            ejected_until: AtomicU64::new(0),
            returned_at: AtomicU64::new(0),
            outs_in_row: AtomicU32::new(0),
            penalty: AtomicU64::new(0),
            note: ArcSwap::from_pointee(Note {
                since: SystemTime::now(),
                error: None,
            }),
        }
    }

    pub fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            1 => Verdict::Up,
            2 => Verdict::Down,
            _ => Verdict::Unknown,
        }
    }

    pub fn note(&self) -> Arc<Note> {
        self.note.load_full()
    }

    /// What traffic has against it, since an exchange went well.
    pub fn passive_failures(&self) -> u32 {
        self.row.failures()
    }

    /// Times it went out of use: checks took it down, or failures of exchanges made it doubted or ejected.
    pub fn downs(&self) -> u64 {
        self.downs.load(Ordering::Relaxed)
    }

    /// Checks hold it up, but exchanges fail.
    pub fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Acquire)
    }

    /// Checks took it down, and the last one passed: it is on its way back.
    pub fn is_rising(&self) -> bool {
        self.verdict() == Verdict::Down && self.check_successes.load(Ordering::Relaxed) != 0
    }

    /// When the ejection ends; none when there is none.
    pub fn ejected_until(&self) -> Option<u64> {
        Some(self.ejected_until.load(Ordering::Acquire)).filter(|&until| until != 0)
    }

    // ------------------------------------------------------------ checks

    /// Whether the last result speaks against the verdict, which further ones have to confirm.
    pub fn is_contested(&self) -> bool {
        let against = match self.verdict() {
            Verdict::Up if self.is_doubted() => return true,
            Verdict::Up => &self.check_failures,
            Verdict::Down => &self.check_successes,
            Verdict::Unknown => return false,
        };
        against.load(Ordering::Relaxed) != 0
    }

    /// A check passed. `decide` makes it final at once, as the first check is, and as the first success is of an
    /// endpoint that was never up: it has just been started, and has no failure behind it that could come back.
    /// A doubt ends after as many successes, times the doubts in a row, ten at most; `now` is in the registry's milliseconds.
    pub fn check_passed(&self, decide: bool, rise: u32, now: u64) -> Option<Turn> {
        self.check_failures.store(0, Ordering::Relaxed);
        self.row.served();
        let successes = count(&self.check_successes);
        let from = self.verdict();
        if from == Verdict::Up && self.is_doubted() {
            let in_row = self.outs_in_row.load(Ordering::Relaxed);
            let needed = rise.saturating_mul(in_row.clamp(1, DOUBTS_MAX));
            let ends = decide || successes >= needed;
            return (ends && self.doubted.swap(false, Ordering::AcqRel)).then(|| {
                self.returned_at.store(now, Ordering::Relaxed);
                self.write_note(self.note().error.clone());
                Turn::Up
            });
        }
        let rises = match from {
            Verdict::Up => false,
            Verdict::Unknown => true,
            Verdict::Down => decide || successes >= rise || !self.was_up.load(Ordering::Relaxed),
        };
        (rises && self.turn(from, Verdict::Up)).then(|| {
            self.doubted.store(false, Ordering::Release);
            self.was_up.store(true, Ordering::Relaxed);
            self.write_note(self.note().error.clone());
            Turn::Up
        })
    }

    /// A check failed; with the failures of exchanges it counts towards `fall`.
    pub fn check_failed(&self, decide: bool, fall: u32, error: &str) -> Option<Turn> {
        self.check_successes.store(0, Ordering::Relaxed);
        let failures = count(&self.check_failures).saturating_add(self.passive_failures());
        let from = self.verdict();
        let falls = match from {
            Verdict::Down => false,
            Verdict::Unknown => true,
            Verdict::Up => decide || failures >= fall,
        };
        if falls && self.turn(from, Verdict::Down) {
            // What was doubted is out of use already.
            if !self.doubted.swap(false, Ordering::AcqRel) {
                self.downs.fetch_add(1, Ordering::Relaxed);
            }
            self.write_note(Some(error.into()));
            return Some(Turn::Down);
        }
        self.note.rcu(|note| Note {
            since: note.since,
            error: Some(error.into()),
        });
        None
    }

    // ------------------------------------------------------------ exchanges

    /// A connection did not come about: counts, and answers how many failures stand against it now.
    pub fn dial_failed(&self) -> u32 {
        self.row.dial_failed();
        self.failures()
    }

    /// An exchange of `client` failed for the endpoint's fault. As [`Standing::dial_failed`].
    pub fn exchange_failed(&self, client: IpAddr, now: u64) -> u32 {
        self.row.exchange_failed(client, now);
        self.failures()
    }

    /// What stands against it, of exchanges and of checks.
    pub fn failures(&self) -> u32 {
        let checks = self.check_failures.load(Ordering::Relaxed);
        self.passive_failures().saturating_add(checks)
    }

    /// An exchange went well. It forgives the failures of exchanges, never those of checks, and raises nothing.
    pub fn exchange_succeeded(&self) {
        self.row.served();
    }

    /// Takes an endpoint out of use that checks hold up, until they have passed again: exchanges have failed too often.
    /// False when it was doubted before, or checks were first.
    pub fn doubt(&self, now: u64) -> bool {
        if self.verdict() != Verdict::Up || self.doubted.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.check_successes.store(0, Ordering::Relaxed);
        self.count_out(now);
        self.schedule.prompt();
        true
    }

    // ------------------------------------------------------------ ejection

    /// Ejects for a time that grows with each ejection in a row; none when another worker was first. A row ends
    /// when the endpoint has served for as long as the longest ejection.
    pub fn eject(&self, now: u64) -> Option<Duration> {
        let lasts = EJECTION_STEP
            .saturating_mul(self.next_in_row(now))
            .min(EJECTION_MAX);
        let until = now + lasts.as_millis() as u64;
        self.ejected_until
            .compare_exchange(0, until, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        self.count_out(now);
        Some(lasts)
    }

    /// Ends an ejection whose time is over; true for the caller that ended it. One more failure ejects again, one
    /// success forgives.
    pub fn return_if_due(&self, now: u64) -> bool {
        let until = self.ejected_until.load(Ordering::Acquire);
        if until == 0 || now < until {
            return false;
        }
        self.row.forgive_all_but(EJECTION_FALL - 1);
        self.returned_at.store(now, Ordering::Relaxed);
        let returned = self
            .ejected_until
            .compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if returned {
            self.write_note(self.note().error.clone());
        }
        returned
    }

    // ------------------------------------------------------------ penalty

    /// Adds one failed exchange to the penalty.
    pub fn penalise(&self, now: u64) {
        let _ = self
            .penalty
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let value = (decayed(packed, now) + LOAD_UNIT).min(u64::from(u32::MAX));
                Some((tick(now) << 32) | value)
            });
    }

    /// The penalty at `now` (asked for only when there is one), in [`LOAD_UNIT`]s.
    pub fn penalty(&self, now: impl FnOnce() -> u64) -> u64 {
        match self.penalty.load(Ordering::Relaxed) {
            0 => 0,
            packed => {
                let left = decayed(packed, now());
                if left == 0 {
                    // Spares the next reader the clock; a newer penalty stays.
                    let (any, lost) = (Ordering::Relaxed, Ordering::Relaxed);
                    let _ = self.penalty.compare_exchange(packed, 0, any, lost);
                }
                left
            }
        }
    }

    // ------------------------------------------------------------

    /// Exchanges took it out of use.
    fn count_out(&self, now: u64) {
        self.outs_in_row
            .store(self.next_in_row(now), Ordering::Relaxed);
        self.downs.fetch_add(1, Ordering::Relaxed);
        self.write_note(Some("exchanges failed".into()));
    }

    /// How many in a row the next ejection or doubt makes.
    fn next_in_row(&self, now: u64) -> u32 {
        let served = now.saturating_sub(self.returned_at.load(Ordering::Relaxed));
        match self.outs_in_row.load(Ordering::Relaxed) {
            _ if u128::from(served) >= EJECTION_MAX.as_millis() => 1,
            n => n.saturating_add(1),
        }
    }

    fn turn(&self, from: Verdict, to: Verdict) -> bool {
        self.verdict
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn write_note(&self, error: Option<Arc<str>>) {
        self.note.store(Arc::new(Note {
            since: SystemTime::now(),
            error,
        }));
    }
}

/// 32 bits of ticks last 17 years; wrapping would only make one old penalty fade late.
fn tick(now_ms: u64) -> u64 {
    (now_ms / PENALTY_TICK_MS) & u64::from(u32::MAX)
}

fn decayed(packed: u64, now_ms: u64) -> u64 {
    let value = packed & u64::from(u32::MAX);
    let age = tick(now_ms).saturating_sub(packed >> 32);
    let halvings = age / PENALTY_HALF_LIFE_TICKS;
    if halvings >= 32 {
        return 0;
    }
    // Between two halvings the value falls in a straight line.
    let value = value >> halvings;
    let part = age % PENALTY_HALF_LIFE_TICKS;
    value - value * part / (2 * PENALTY_HALF_LIFE_TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_check_decides_and_then_rise_and_fall_count() {
        let s = Standing::new();
        assert_eq!(s.verdict(), Verdict::Unknown);
        assert_eq!(s.check_passed(false, 2, 1), Some(Turn::Up));
        for (failure, turn) in [(1, None), (2, None), (3, Some(Turn::Down))] {
            assert_eq!(s.check_failed(false, 3, "refused"), turn, "{failure}");
        }
        assert_eq!(s.check_passed(false, 2, 1), None);
        assert!(s.is_contested());
        assert_eq!(s.check_failed(false, 3, "refused"), None);
        assert_eq!(s.check_passed(false, 2, 1), None, "the row was broken");
        assert_eq!(s.check_passed(false, 2, 1), Some(Turn::Up));
        assert_eq!(s.check_failed(false, 3, "a"), None);
        assert_eq!(s.check_failed(false, 3, "b"), None);
        assert_eq!(s.note().error.as_deref(), Some("b"));
        assert_eq!(s.check_failed(false, 3, "c"), Some(Turn::Down));
        assert_eq!(s.check_passed(true, 2, 1), Some(Turn::Up));
    }

    #[test]
    fn an_endpoint_that_was_never_up_needs_one_success() {
        let s = Standing::new();
        assert_eq!(s.check_failed(false, 3, "refused"), Some(Turn::Down));
        assert_eq!(s.check_failed(false, 3, "refused"), None);
        assert!(!s.is_contested());
        assert_eq!(s.check_passed(false, 5, 1), Some(Turn::Up));
        assert!(!s.is_contested());
    }

    #[test]
    fn exchanges_feed_the_same_fall_but_raise_nothing() {
        let s = Standing::new();
        s.check_passed(false, 2, 1);
        s.check_failed(false, 3, "x");
        assert_eq!(s.dial_failed(), 2);
        s.exchange_succeeded();
        assert_eq!(s.dial_failed(), 2, "a check's failure is not forgiven");
        assert_eq!(s.check_failed(false, 3, "x"), Some(Turn::Down));
        s.exchange_succeeded();
        assert_eq!(s.verdict(), Verdict::Down);
        assert!(!s.doubt(1));
        assert_eq!(s.downs(), 1);
    }

    #[test]
    fn a_doubt_holds_until_checks_have_passed_and_longer_each_time() {
        let s = Standing::new();
        s.check_passed(false, 2, 1);
        for n in 1..=3 {
            assert!(s.doubt(1) && s.is_doubted() && s.is_contested());
            assert!(!s.doubt(1), "it is already");
            assert_eq!(s.downs(), n);
            let passes = (1..10).find(|_| s.check_passed(false, 2, 1) == Some(Turn::Up));
            assert_eq!(passes, Some(2 * n as usize));
            assert!(!s.is_doubted());
        }
        assert!(s.doubt(300_001));
        assert_eq!(s.check_failed(false, 1, "x"), Some(Turn::Down));
        assert_eq!(s.downs(), 4, "it was out of use already");
        assert!(!s.is_rising());
        s.check_passed(false, 2, 300_001);
        assert!(s.is_rising() && !s.is_doubted());
        assert_eq!(s.check_passed(false, 2, 300_001), Some(Turn::Up));
        assert!(!s.is_rising() && !s.is_contested());
    }

    #[test]
    fn ejections_grow_are_capped_and_are_forgotten() {
        let s = Standing::new();
        let mut now = 1;
        for n in 1..=40 {
            let lasts = s.eject(now).unwrap();
            assert_eq!(lasts, Duration::from_secs((10 * n).min(300)));
            assert_eq!(s.eject(now), None);
            assert!(!s.return_if_due(now));
            now += lasts.as_millis() as u64;
            assert!(s.return_if_due(now));
            assert_eq!(s.passive_failures(), EJECTION_FALL - 1);
        }
        now += 300_000;
        assert_eq!(s.eject(now), Some(Duration::from_secs(10)));
        assert_eq!(s.downs(), 41);
    }

    #[test]
    fn a_penalty_fades_by_half_every_two_seconds() {
        let s = Standing::new();
        let start = 10_000;
        assert_eq!(s.penalty(|| unreachable!()), 0);
        for _ in 0..4 {
            s.penalise(start);
        }
        let cases = [
            (0, 64),
            (1000, 48),
            (2000, 32),
            (4000, 16),
            (8000, 4),
            (100_000, 0),
        ];
        for (after, expected) in cases {
            assert_eq!(s.penalty(|| start + after), expected, "after {after} ms");
        }
    }
}
