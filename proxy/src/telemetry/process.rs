//! What the kernel says of this process, read from `/proc` at each scrape.

use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::Visitor;

/// `/proc/*/stat` counts in USER_HZ, which the kernel's ABI fixes at 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the usual `process_*` families; what cannot be read is left out.
pub fn visit(visitor: &mut Visitor, started: SystemTime) {
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    visitor.gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970",
        &[],
        since.as_secs_f64(),
    );
    if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
        visitor.seconds(
            "process_cpu_seconds",
            "User and system time of the process",
            &[],
            seconds,
        );
    }
    let status = read("/proc/self/status").unwrap_or_default();
    for (key, name, help, unit) in [
        (
            "VmRSS:",
            "process_resident_memory_bytes",
            "Resident memory of the process",
            1024.0,
        ),
        (
            "VmSize:",
            "process_virtual_memory_bytes",
            "Virtual memory of the process",
            1024.0,
        ),
        ("Threads:", "process_threads", "Threads of the process", 1.0),
    ] {
        if let Some(value) = field(&status, key) {
            visitor.gauge(name, help, &[], value as f64 * unit);
        }
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The listing itself holds one open.
        let count = entries.count().saturating_sub(1);
        visitor.gauge(
            "process_open_fds",
            "Open file descriptors",
            &[],
            count as f64,
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(limit) = limit.current {
        visitor.gauge(
            "process_max_fds",
            "File descriptors the process may open",
            &[],
            limit as f64,
        );
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `utime` and `stime`: fields 14 and 15, counted after the command, which may hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system) as f64 / TICKS_PER_SECOND)
}

fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_and_status() {
        let stat = "42 (a) b) c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("42 (a"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  128 kB\n", "VmRSS:"), Some(128));
        assert_eq!(field("Name:\tx\n", "VmRSS:"), None);
    }
}
