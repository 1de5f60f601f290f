//! Counters that one worker writes without contention and a scrape adds up.
//!
//! Every handle has cells of its own, in cache lines of its own, so counting is a plain load, add and store. When a
//! handle is dropped (a reload replaced it, a worker ended) its counts move into the series' own total: nothing is lost
//! and a thousand reloads leave one total per name.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Names one table keeps apart; what comes after is counted under [`OVERFLOW`]. Only configurations that rename
/// their objects thousands of times without a restart get there.
const NAMES_MAX: usize = 1024;
const OVERFLOW: &str = "(other)";

/// Series of `N` counters each, by name. A name stays until the process ends: counters must not go back.
#[derive(Debug)]
pub struct Shards<const N: usize> {
    series: Mutex<BTreeMap<Arc<str>, Series<N>>>,
}

#[derive(Debug)]
struct Series<const N: usize> {
    /// What dropped handles had counted.
    past: [u64; N],
    live: Vec<Arc<Cells<N>>>,
}

/// Two cache lines apart, since neighbours are prefetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Cells<const N: usize>([AtomicU64; N]);

/// One writer of one series. It may move to another thread, but is never used by two: that is what makes counting
/// without an atomic read-modify-write right, and why it is neither `Clone` nor `Sync`.
#[derive(Debug)]
pub struct Shard<const N: usize> {
    cells: Arc<Cells<N>>,
    name: Arc<str>,
    table: Weak<Shards<N>>,
    not_sync: PhantomData<std::cell::Cell<()>>,
}

impl<const N: usize> Shards<N> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            series: Mutex::default(),
        })
    }

    /// A new writer for `name`.
    pub fn shard(self: &Arc<Self>, name: &str) -> Shard<N> {
        let cells = Arc::new(Cells(std::array::from_fn(|_| AtomicU64::new(0))));
        let mut table = self.lock();
        let name: Arc<str> = match table.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None if table.len() >= NAMES_MAX => OVERFLOW.into(),
            None => name.into(),
        };
        let series = table.entry(name.clone()).or_insert_with(|| Series {
            past: [0; N],
            live: Vec::new(),
        });
        series.live.push(cells.clone());
        Shard {
            cells,
            name,
            table: Arc::downgrade(self),
            not_sync: PhantomData,
        }
    }

    /// Visits each name with its sums, in order of names.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &[u64; N])) {
        for (name, series) in self.lock().iter() {
            let mut sums = series.past;
            for cells in &series.live {
                cells.add_to(&mut sums);
            }
            visit(name, &sums);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Series<N>>> {
        // Counts stay consistent whatever panicked while it was held.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const N: usize> Cells<N> {
    fn add_to(&self, sums: &mut [u64; N]) {
        // Backwards, so that what is counted later in a life (closed, at a higher index) is read before what came
        // earlier (opened): a difference of the two never falls below zero.
        for (sum, cell) in sums.iter_mut().zip(&self.0).rev() {
            *sum = sum.wrapping_add(cell.load(Ordering::Acquire));
        }
    }
}

impl<const N: usize> Shard<N> {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds to counter `index`; an index out of range counts nothing.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        if let Some(cell) = self.cells.0.get(index) {
            // Only this handle writes: a load and a store cannot lose an addition. Release pairs with the scrape's
            // acquire and costs nothing on x86.
            let value = cell.load(Ordering::Relaxed);
            cell.store(value.wrapping_add(n), Ordering::Release);
        }
    }
}

impl<const N: usize> Drop for Shard<N> {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else {
            return;
        };
        let mut table = table.lock();
        if let Some(series) = table.get_mut(&self.name) {
            series.live.retain(|c| !Arc::ptr_eq(c, &self.cells));
            self.cells.add_to(&mut series.past);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(shards: &Shards<2>) -> Vec<(String, [u64; 2])> {
        let mut all = Vec::new();
        shards.for_each(|name, sums| all.push((name.to_owned(), *sums)));
        all
    }

    #[test]
    fn shards_of_one_name_add_up_and_outlive_their_handles() {
        let shards = Shards::<2>::new();
        let (a, b) = (shards.shard("web"), shards.shard("web"));
        a.add(0, 2);
        b.add(0, 3);
        b.add(1, 1);
        b.add(7, 1);
        assert_eq!(sums(&shards), [("web".into(), [5, 1])]);
        drop(a);
        assert_eq!(sums(&shards), [("web".into(), [5, 1])]);
        for _ in 0..1000 {
            shards.shard("web").add(1, 1);
        }
        assert_eq!(sums(&shards), [("web".into(), [5, 1001])]);
        assert_eq!(shards.lock()["web"].live.len(), 1);
    }

    #[test]
    fn threads_lose_nothing() {
        let shards = Shards::<2>::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let shard = shards.shard("web");
                scope.spawn(move || (0..10_000).for_each(|_| shard.add(0, 1)));
            }
        });
        assert_eq!(sums(&shards), [("web".into(), [40_000, 0])]);
    }

    #[test]
    fn names_are_bounded() {
        let shards = Shards::<2>::new();
        for i in 0..NAMES_MAX + 10 {
            shards.shard(&i.to_string()).add(0, 1);
        }
        let all = sums(&shards);
        assert_eq!(all.len(), NAMES_MAX + 1);
        assert_eq!(
            all.iter().find(|(n, _)| n == OVERFLOW).map(|s| s.1[0]),
            Some(10)
        );
    }
}
