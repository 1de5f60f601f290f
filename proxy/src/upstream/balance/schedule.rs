//! The order in which weighted endpoints take turns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Turns in a schedule at most, unless there are more endpoints than this. Weights that would need more are
/// rounded, each to one turn at least.
pub const TURNS_MAX: usize = 16 * 1024;

/// One cycle of turns over `entries` (index and weight above 0): each entry appears in exact proportion to its
/// weight, as evenly spaced as the others allow. Earliest deadline first, the deadline of an entry's k-th turn being
/// the middle of its k-th share of the cycle; ties go to the lower position.
pub fn interleave(entries: &[(u16, u32)]) -> Box<[u16]> {
    let weights = reduce(entries);
    let turns: u64 = weights.iter().sum();
    let mut heap: BinaryHeap<Reverse<Deadline>> = weights
        .iter()
        .enumerate()
        .filter(|&(_, &weight)| weight > 0)
        .map(|(position, &weight)| {
            Reverse(Deadline {
                numerator: 1,
                weight,
                position,
            })
        })
        .collect();
    let mut schedule = Vec::with_capacity(usize::try_from(turns).unwrap_or(0));
    for _ in 0..turns {
        let Some(mut next) = heap.peek_mut() else {
            break;
        };
        let Reverse(deadline) = &mut *next;
        if let Some(&(index, _)) = entries.get(deadline.position) {
            schedule.push(index);
        }
        deadline.numerator += 2;
    }
    schedule.into()
}

/// `numerator / (2 * weight)` of the cycle.
#[derive(PartialEq, Eq)]
struct Deadline {
    numerator: u64,
    weight: u64,
    position: usize,
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Both factors stay far below 2^32: turns are bounded and so are weights.
        (self.numerator * other.weight)
            .cmp(&(other.numerator * self.weight))
            .then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The smallest weights of the same proportions, or nearly so when that would take too many turns.
fn reduce(entries: &[(u16, u32)]) -> Vec<u64> {
    let weights = || entries.iter().map(|&(_, weight)| u64::from(weight));
    let divisor = weights().fold(0, gcd).max(1);
    let total: u64 = weights().map(|w| w / divisor).sum();
    let max = TURNS_MAX.max(entries.len()) as u64;
    if total <= max {
        return weights().map(|w| w / divisor).collect();
    }
    let spare = max.saturating_sub(entries.len() as u64);
    let rounded: Vec<u64> = weights()
        .map(|w| match w / divisor {
            0 => 0,
            // Everybody has one turn; the spare ones are dealt in proportion.
            w => 1 + (w - 1) * spare / total,
        })
        .collect();
    let divisor = rounded.iter().copied().fold(0, gcd).max(1);
    rounded.iter().map(|w| w / divisor).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(weights: &[u32]) -> Vec<u16> {
        let entries: Vec<_> = (0u16..).zip(weights.iter().copied()).collect();
        interleave(&entries).into_vec()
    }

    #[test]
    fn small_cycles() {
        let cases: &[(&[u32], &[u16])] = &[
            (&[], &[]),
            (&[0], &[]),
            (&[7], &[0]),
            (&[1, 1], &[0, 1]),
            (&[4, 4, 4], &[0, 1, 2]),
            (&[1, 0, 1], &[0, 2]),
            (&[1, 2], &[1, 0, 1]),
            (&[5, 1, 1], &[0, 0, 0, 1, 2, 0, 0]),
            (&[100, 200], &[1, 0, 1]),
        ];
        for (weights, expected) in cases {
            assert_eq!(&schedule(weights), expected, "{weights:?}");
        }
    }

    #[test]
    fn stays_bounded() {
        let heavy: Vec<u32> = (0..1000).map(|n| 200 + n % 57).collect();
        let turns = schedule(&heavy);
        assert!(turns.len() <= TURNS_MAX);
        let all: std::collections::HashSet<_> = turns.iter().collect();
        assert_eq!(all.len(), 1000);
        let many = [3, 256].repeat(10_000);
        assert_eq!(schedule(&many).len(), 20_000);
    }

    proptest! {
        #[test]
        fn shares_are_exact_and_smooth(weights in prop::collection::vec(0u32..=64, 1..24)) {
            let turns = schedule(&weights);
            let divisor = weights.iter().map(|&w| u64::from(w)).fold(0, gcd).max(1) as u32;
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(turns.len() as u32, total / divisor);
            let mut counts = vec![0u32; weights.len()];
            for (n, &turn) in turns.iter().enumerate() {
                counts[usize::from(turn)] += 1;
                // Nobody is ever far from its due share.
                for (count, weight) in counts.iter().zip(&weights) {
                    let due = f64::from(*weight) / f64::from(total) * (n + 1) as f64;
                    prop_assert!((f64::from(*count) - due).abs() < 3.0, "{counts:?} {weights:?}");
                }
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * divisor, *weight);
            }
        }

        #[test]
        fn equal_weights_rotate(n in 1usize..200, weight in 1u32..=256) {
            let expected: Vec<u16> = (0..n as u16).collect();
            prop_assert_eq!(schedule(&vec![weight; n]), expected);
        }
    }
}
