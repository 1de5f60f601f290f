//! Maglev: a table that maps hashes to endpoints so that few keys move when endpoints come and go.
//! (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4.)

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Prime, and a hundred times larger than most pools, which keeps shares within one percent.
const TABLE: usize = 65_537;
/// For larger pools.
const TABLE_LARGE: usize = 655_373;

const OFFSET_SEED: u64 = 0x5175_6963_6567_6174;
const SKIP_SEED: u64 = 0x536c_7569_6365_6761;

/// Where a hash that finds its endpoint unusable goes on: so many further slots are tried before giving up.
const STEPS_MAX: u64 = 32;

/// The hash of a sticky key or client address.
///
/// It is not keyed by a secret: the same key must find the same endpoint after a restart and on the machine next
/// door. A client that chooses its keys can therefore choose its endpoint, as it could by repeating one key; what it
/// may do there is bounded by `max_connections`.
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Fixed by the identities and weights alone: their order, the process and the time of building do not matter.
#[derive(Debug)]
pub struct Maglev {
    table: Box<[u16]>,
}

impl Maglev {
    /// Builds from (index, identity, weight above 0). About a millisecond for the usual table.
    pub fn new<'a>(entries: impl IntoIterator<Item = (u16, &'a str, u32)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().filter(|e| e.2 > 0).collect();
        // Slots are contested in this order.
        entries.sort_unstable_by_key(|&(_, identity, _)| identity);
        let size = if entries.len() * 100 <= TABLE {
            TABLE
        } else {
            TABLE_LARGE
        };
        Self {
            table: fill(&entries, size),
        }
    }

    /// The endpoint of `hash`, or, while `usable` refuses it, the endpoints of further slots that only this hash
    /// leads to: the keys of an endpoint that is down spread over all the others, and no other key moves.
    pub fn find(&self, hash: u64, mut usable: impl FnMut(u16) -> bool) -> Option<u16> {
        let size = self.table.len() as u64;
        if size == 0 {
            return None;
        }
        let mut slot_hash = hash;
        for step in 0..=STEPS_MAX {
            let index = *self.table.get((slot_hash % size) as usize)?;
            if usable(index) {
                return Some(index);
            }
            slot_hash = xxh3_64_with_seed(&hash.to_le_bytes(), step + 1);
        }
        None
    }
}

struct Contender {
    index: u16,
    slot: usize,
    skip: usize,
    weight: u64,
    credit: u64,
}

fn fill(entries: &[(u16, &str, u32)], size: usize) -> Box<[u16]> {
    let heaviest = entries.iter().map(|e| u64::from(e.2)).max().unwrap_or(0);
    let mut contenders: Vec<Contender> = entries
        .iter()
        .map(|&(index, identity, weight)| {
            let at = |seed| xxh3_64_with_seed(identity.as_bytes(), seed);
            Contender {
                index,
                slot: (at(OFFSET_SEED) % size as u64) as usize,
                skip: (at(SKIP_SEED) % (size as u64 - 1)) as usize + 1,
                weight: u64::from(weight),
                credit: 0,
            }
        })
        .collect();
    if contenders.is_empty() {
        return Box::default();
    }
    let mut table: Vec<Option<u16>> = vec![None; size];
    let mut left = size;
    while left > 0 {
        for contender in &mut contenders {
            // The heaviest takes a slot in every round, the others in proportion.
            contender.credit += contender.weight;
            if contender.credit < heaviest {
                continue;
            }
            contender.credit -= heaviest;
            // The size is prime, so the walk meets every slot; one is free.
            while table.get(contender.slot).is_some_and(Option::is_some) {
                contender.slot = (contender.slot + contender.skip) % size;
            }
            if let Some(slot) = table.get_mut(contender.slot) {
                *slot = Some(contender.index);
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n)
            .map(|i| format!("10.0.{}.{}:80", i / 256, i % 256))
            .collect()
    }

    fn maglev(names: &[String], weight: impl Fn(usize) -> u32) -> Maglev {
        let entries = names.iter().enumerate();
        Maglev::new(entries.map(|(i, name)| (i as u16, &**name, weight(i))))
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..20_000u32).map(|n| hash(&n.to_be_bytes()))
    }

    fn name<'a>(table: &Maglev, names: &'a [String], key: u64) -> &'a str {
        &names[usize::from(table.find(key, |_| true).unwrap())]
    }

    #[test]
    fn shares_follow_weights() {
        let names = names(4);
        let table = maglev(&names, |i| [1, 2, 0, 5][i]);
        let mut shares = [0usize; 4];
        table
            .table
            .iter()
            .for_each(|&i| shares[usize::from(i)] += 1);
        for (share, weight) in shares.iter().zip([1, 2, 0, 5]) {
            let due = TABLE * weight / 8;
            assert!(share.abs_diff(due) <= TABLE / 1000, "{shares:?}");
        }
    }

    #[test]
    fn order_does_not_matter() {
        let forward = names(20);
        let mut backward = forward.clone();
        backward.reverse();
        let (a, b) = (maglev(&forward, |_| 1), maglev(&backward, |_| 1));
        assert!(keys().all(|k| name(&a, &forward, k) == name(&b, &backward, k)));
    }

    /// The table may not change between releases: other processes and later versions must agree.
    #[test]
    fn the_mapping_is_fixed() {
        let names = names(5);
        let table = maglev(&names, |_| 1);
        let picks: Vec<_> = [&b"alice"[..], b"bob", b"", b"10.0.0.1"]
            .iter()
            .map(|key| table.find(hash(key), |_| true).unwrap())
            .collect();
        assert_eq!(picks, [3, 2, 2, 0]);
    }

    #[test]
    fn adding_an_endpoint_moves_little_more_than_its_share() {
        let (ten, eleven) = (names(10), names(11));
        let (a, b) = (maglev(&ten, |_| 1), maglev(&eleven, |_| 1));
        let moved = keys()
            .filter(|&k| name(&a, &ten, k) != name(&b, &eleven, k))
            .count();
        assert!(moved < 20_000 / 11 * 3 / 2, "{moved} of 20000 moved");
    }

    #[test]
    fn an_unusable_endpoint_moves_only_its_own_keys_and_evenly() {
        let names = names(5);
        let table = maglev(&names, |_| 1);
        let mut heirs = [0usize; 5];
        for key in keys() {
            let before = table.find(key, |_| true).unwrap();
            let after = table.find(key, |i| i != 2).unwrap();
            if before == 2 {
                heirs[usize::from(after)] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert_eq!(heirs[2], 0);
        for heir in [0, 1, 3, 4] {
            assert!(heirs[heir].abs_diff(1000) < 150, "{heirs:?}");
        }
    }

    #[test]
    fn extremes() {
        assert_eq!(maglev(&[], |_| 1).find(7, |_| true), None);
        assert_eq!(maglev(&names(3), |_| 0).find(7, |_| true), None);
        assert_eq!(maglev(&names(3), |_| 1).find(7, |_| false), None);
        assert_eq!(maglev(&names(700), |_| 1).table.len(), TABLE_LARGE);
    }
}
