//! What one operation on the store in memory costs, alone and with another thread at the same store.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate::store::{Memory, StoreOp};

const KEYS: usize = 10_000;

fn store() -> Memory {
    let memory = Memory::new(16 << 20);
    for i in 0..KEYS {
        let key = key(i);
        let (key, value) = (key.as_bytes(), &[b'v'; 100]);
        let set = StoreOp::Set {
            key,
            value,
            ttl: None,
        };
        memory.run(&set).expect("it fits");
    }
    memory
}

fn key(i: usize) -> String {
    format!("session-{i:08}")
}

fn measure(c: &mut Criterion, threads: &str, memory: &Memory) {
    let ttl = Some(Duration::from_secs(60));
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut keys = keys.iter().map(String::as_bytes).cycle();
    let mut next = move || keys.next().unwrap_or_default();
    c.bench_function(&format!("store/{threads}/get"), |b| {
        b.iter(|| black_box(memory.run(&StoreOp::Get { key: next() })))
    });
    let value = &[b'w'; 100];
    c.bench_function(&format!("store/{threads}/set"), |b| {
        b.iter(|| {
            let key = next();
            black_box(memory.run(&StoreOp::Set { key, value, ttl }))
        })
    });
    let (key, delta) = (&b"hits"[..], 1);
    c.bench_function(&format!("store/{threads}/increment-one-key"), |b| {
        b.iter(|| black_box(memory.run(&StoreOp::Increment { key, delta, ttl })))
    });
}

fn operations(c: &mut Criterion) {
    let memory = store();
    measure(c, "alone", &memory);
    let memory = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let keys: Vec<String> = (0..KEYS).map(key).collect();
            for key in keys.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let (key, delta) = (key.as_bytes(), 1);
                let _ = black_box(memory.run(&StoreOp::Get { key }));
                let key = b"hits";
                let ttl = None;
                let _ = black_box(memory.run(&StoreOp::Increment { key, delta, ttl }));
            }
        });
        measure(c, "two-threads", &memory);
        done.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, operations);
criterion_main!(benches);
