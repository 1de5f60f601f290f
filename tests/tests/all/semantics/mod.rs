//! What docs/semantics.md promises, sentence by sentence, as far as no other topic holds it already.

use sluicegate_tests::proxy::Proxy;
use sluicegate_tests::wait::{DEADLINE, eventually};

mod drain;
mod expect;
mod forwarding;
mod headers;
mod health;
mod host;
mod http2;
mod kill;
mod messages;
mod reasons;
mod reload;
mod retries;
mod rolling;
mod statuses;
mod structured;
mod trailers;
mod upgrade;

/// Waits until a series of `/metrics` has this value: a client may have its answer before the exchange is counted.
fn counted(proxy: &Proxy, series: &str, value: f64) {
    let right = || proxy.metric(series) == value;
    let now = || proxy.metric(series);
    assert!(
        eventually(DEADLINE, right),
        "{series} is {}, not {value}",
        now()
    );
}

/// Runs every case on a thread of its own and fails with everything that went wrong, by name.
fn each<C: Sync>(cases: &[C], name: impl Fn(&C) -> String, run: impl Fn(&C) + Sync) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|case| (name(case), scope.spawn(|| run(case))))
            .collect();
        running
            .into_iter()
            .filter_map(|(name, thread)| {
                let why = thread.join().err()?;
                let text = why.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| why.downcast_ref::<&str>().copied());
                Some(format!("{name}: {}", text.unwrap_or("it panicked")))
            })
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
