//! The store in memory: the cases of all, time, room, and threads.

use super::super::memory::Memory;
use super::super::{OpKind, OpResult, StoreAnswer, StoreError, StoreOp};
use super::cases::{LONG, add, cases, delete, get, set, swap, value};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

#[test]
fn answers_like_every_store() {
    let memory = Memory::new(16 * MIB);
    for (op, expected) in cases() {
        assert_eq!(memory.run(&op), expected, "{:?}", op.key());
    }
    let sample = memory.sample();
    assert_eq!(sample.operations(OpKind::Delete, OpResult::Absent), 1);
    assert_eq!(
        sample.operations(OpKind::CompareAndSet, OpResult::Differs),
        4
    );
    assert_eq!(sample.operations(OpKind::Get, OpResult::Refused), 1);
    assert_eq!(sample.operations(OpKind::Increment, OpResult::Refused), 9);
    assert_eq!(sample.evictions, 0);
}

#[test]
fn keys_expire() {
    let memory = Memory::new(MIB);
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let run = |op: StoreOp<'_>, at| memory.run_at(&op, start + at);
    let absent = Ok(StoreAnswer::Absent);
    run(set("a", "1", Some(second)), Duration::ZERO).unwrap();
    assert_eq!(run(get("a"), second - Duration::from_millis(1)), value("1"));
    assert_eq!(run(get("a"), second), absent);
    // The time of an increment counts when it creates the key, and only then.
    run(add("n", 1, Some(second)), Duration::ZERO).unwrap();
    run(add("n", 1, Some(10 * second)), second / 2).unwrap();
    assert_eq!(run(add("n", 1, None), second), Ok(StoreAnswer::Number(1)));
    assert_eq!(run(get("n"), 100 * second), value("1"));
    // A value that replaces another has its own time.
    run(set("b", "1", Some(second)), Duration::ZERO).unwrap();
    run(swap("b", Some("1"), "2"), Duration::ZERO).unwrap();
    assert_eq!(run(get("b"), 100 * second), value("2"));
    assert_eq!(run(delete("b"), 100 * second), Ok(StoreAnswer::Done));
    // Nothing is left of what expired.
    run(set("c", "1", Some(second)), Duration::ZERO).unwrap();
    assert_eq!(run(swap("c", Some("1"), "2"), second), absent);
    assert_eq!(memory.sample().entries, 1);
}

#[test]
fn expired_entries_make_room_without_being_asked_for() {
    let memory = Memory::new(MIB);
    let start = Instant::now();
    let name = |i: usize| format!("key-{i}");
    for i in 0..1000 {
        let ttl = Some(Duration::from_secs(1));
        memory.run_at(&set(&name(i), "x", ttl), start).unwrap();
    }
    for i in 1000..1500 {
        let now = start + Duration::from_secs(1);
        memory.run_at(&set(&name(i), "x", None), now).unwrap();
    }
    let sample = memory.sample();
    assert_eq!((sample.entries, sample.evictions), (500, 0));
}

#[test]
fn what_is_asked_for_stays_and_the_bound_holds() {
    let memory = Memory::new(MIB);
    memory.run(&set("hot", "x", None)).unwrap();
    for i in 0..100_000 {
        memory.run(&set(&format!("key-{i}"), "x", LONG)).unwrap();
        assert_eq!(memory.run(&get("hot")), value("x"));
    }
    let sample = memory.sample();
    assert!(sample.bytes <= MIB as u64);
    assert_eq!(sample.entries + sample.evictions, 100_001);
    assert!(sample.entries > 4000, "{sample:?}");
}

#[test]
fn large_values_and_growing_ones_stay_within_the_bound() {
    let memory = Memory::new(MIB);
    let large = "x".repeat(MIB / 2);
    assert_eq!(
        memory.run(&set("a", &format!("{large}x"), None)),
        Err(StoreError::ValueTooLarge)
    );
    for key in ["a", "b", "c"] {
        memory.run(&set(key, "", None)).unwrap();
        memory.run(&set(key, &large, None)).unwrap();
        assert_eq!(memory.run(&get(key)), value(&large));
        assert!(memory.sample().bytes <= MIB as u64);
    }
    assert!(memory.sample().evictions >= 2);
}

#[test]
fn increments_of_many_threads_add_up() {
    let memory = Memory::new(MIB);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..10_000 {
                    memory.run(&add("n", 1, LONG)).unwrap();
                    memory
                        .run(&set(&format!("key-{}", i % 100), "x", None))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(memory.run(&get("n")), value("40000"));
    assert_eq!(memory.sample().entries, 101);
}
