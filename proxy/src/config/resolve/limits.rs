//! What bounds a filter, and the digest that pins its module.

use std::time::Duration;

use super::resolver::{Resolver, key_name};
use crate::config::diagnostic::{Diagnostic, quoted};
use crate::config::model::{ConfigPath, FaultLimit, FilterLimits};
use crate::config::raw::{DurationOrOff, RawFaults, RawFilterLimits, RawInstances};
use crate::config::units;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

impl Resolver<'_> {
    pub(super) fn filter_limits(&mut self, raw: &RawFilterLimits, at: &ConfigPath) -> FilterLimits {
        FilterLimits {
            memory: self.size(&raw.memory, &at.join("memory"), 64 << 10, 4 << 30),
            deadline: self.duration(&raw.deadline, &at.join("deadline"), MILLISECOND),
            configure_deadline: self.duration(
                &raw.configure_deadline,
                &at.join("configure-deadline"),
                MILLISECOND,
            ),
            output: self.size(&raw.output, &at.join("output"), 1 << 10, 64 << 20),
            cpu: self.cpu(&raw.cpu, &at.join("cpu")),
            host_calls: raw.host_calls,
            instances: match raw.instances {
                RawInstances::Auto(_) => None,
                RawInstances::Count(count) => Some(count),
            },
            suspends: raw.suspends,
            state: self.size(&raw.state, &at.join("state"), 0, 64 << 20),
            faults: match &raw.faults {
                RawFaults::Off(_) => None,
                RawFaults::Text(text) => self.faults(text, &at.join("faults")),
            },
        }
    }

    /// Processor time of a second: more than a second is no limit for one thread.
    fn cpu(&mut self, raw: &DurationOrOff, at: &ConfigPath) -> Option<Duration> {
        let DurationOrOff::Duration(text) = raw else {
            return None;
        };
        let time = self.duration(text, at, MILLISECOND);
        if time > SECOND {
            let message = format!(
                "{} is a part of each second, at most 1s, not {}",
                key_name(at),
                quoted(&text.0)
            );
            self.error(at, "out-of-range", message);
        }
        Some(time)
    }

    /// `5/10s`.
    fn faults(&mut self, text: &str, at: &ConfigPath) -> Option<FaultLimit> {
        let parts = text.split_once('/').and_then(|(count, within)| {
            let count: u32 = count.parse().ok()?;
            Some((count, units::duration(within).ok()?))
        });
        match parts {
            Some((count @ 1..=100, within)) if within >= MILLISECOND => {
                Some(FaultLimit { count, within })
            }
            Some(_) => {
                let message = format!(
                    "{} is a count from 1 to 100 within at least 1ms, not {}",
                    key_name(at),
                    quoted(text)
                );
                self.error(at, "out-of-range", message);
                None
            }
            None => {
                let message = format!("{} is not a count within a time", quoted(text));
                let help = "write it as `5/10s`: five faults within ten seconds; or `off`";
                self.push(Diagnostic::error("bad-faults", message).help(help), at);
                None
            }
        }
    }

    /// 64 hexadecimal digits of either case.
    pub(super) fn sha256(&mut self, text: &str, at: &ConfigPath) -> Option<[u8; 32]> {
        let digest = digest(text);
        if digest.is_none() {
            let message = format!("{} is not a SHA-256 digest", quoted(text));
            let help = "a digest is 64 hexadecimal digits; `sluicegate filter inspect FILE` prints that of a module";
            self.push(Diagnostic::error("bad-digest", message).help(help), at);
        }
        digest
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut digest = [0; 32];
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            let value = char::from(digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_64_digits() {
        let hex = format!("{}Ff", "0a".repeat(31));
        let mut bytes = [10; 32];
        bytes[31] = 255;
        assert_eq!(digest(&hex), Some(bytes));
        for text in [
            "",
            "0a",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('F', "g"),
            &"é".repeat(32),
        ] {
            assert_eq!(digest(text), None, "{text}");
        }
    }
}
