//! What docs/semantics.md promises, sentence by sentence, as far as no other topic holds it already.

mod drain;
mod expect;
mod forwarding;
mod headers;
mod health;
mod host;
mod kill;
mod reload;
mod retries;
mod statuses;
mod structured;
mod trailers;
mod upgrade;

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
