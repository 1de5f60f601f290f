//! Timestamps as logs write them, with the civil date computed once a second.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Renders times in UTC. Keeps the text of the last second, since neighbouring records mostly share it; a time out of
/// range (before 1970 or after 9999) is rendered as the nearest one in range.
#[derive(Debug, Clone)]
pub struct Clock {
    second: Option<u64>,
    /// `2026-11-23T15:00:00`
    rfc3339: [u8; 19],
    /// `23/Nov/2026:15:00:00 +0000`
    common: [u8; 26],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            second: None,
            rfc3339: *b"1970-01-01T00:00:00",
            common: *b"01/Jan/1970:00:00:00 +0000",
        }
    }
}

impl Clock {
    /// Appends `2026-11-23T15:00:00.123Z`.
    pub fn push_rfc3339(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = self.turn_to(time);
        out.extend_from_slice(&self.rfc3339);
        let ms = since.subsec_millis();
        out.extend_from_slice(&[
            b'.',
            b'0' + (ms / 100) as u8,
            b'0' + (ms / 10 % 10) as u8,
            b'0' + (ms % 10) as u8,
            b'Z',
        ]);
    }

    /// Appends `23/Nov/2026:15:00:00 +0000`, as NCSA logs have it between brackets.
    pub fn push_common(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.turn_to(time);
        out.extend_from_slice(&self.common);
    }

    /// Makes the kept texts those of `time`'s second; answers the time since 1970.
    fn turn_to(&mut self, time: SystemTime) -> Duration {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.render(since.as_secs());
        }
        since
    }

    fn render(&mut self, second: u64) {
        let stamp = i64::try_from(second)
            .ok()
            .and_then(|s| jiff::Timestamp::from_second(s).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        let at = jiff::tz::Offset::UTC.to_datetime(stamp);
        let year = at.year().unsigned_abs();
        let (month, day) = (at.month().unsigned_abs(), at.day().unsigned_abs());
        let time = [at.hour(), at.minute(), at.second()].map(i8::unsigned_abs);

        let century = two((year / 100) as u8);
        let rest = two((year % 100) as u8);
        let r = &mut self.rfc3339;
        r[0..2].copy_from_slice(&century);
        r[2..4].copy_from_slice(&rest);
        r[5..7].copy_from_slice(&two(month));
        r[8..10].copy_from_slice(&two(day));
        let c = &mut self.common;
        c[0..2].copy_from_slice(&two(day));
        c[3..6].copy_from_slice(MONTHS[usize::from(month.clamp(1, 12) - 1)]);
        c[7..9].copy_from_slice(&century);
        c[9..11].copy_from_slice(&rest);
        for (i, value) in time.into_iter().enumerate() {
            r[11 + 3 * i..13 + 3 * i].copy_from_slice(&two(value));
            c[12 + 3 * i..14 + 3 * i].copy_from_slice(&two(value));
        }
    }
}

/// Renders times for `Date` fields (RFC 9110 §5.6.7), and keeps the text of the last second.
#[derive(Debug)]
pub struct HttpClock {
    second: Option<u64>,
    text: [u8; 29],
}

/// The end of the year 9999, beyond which there is no date.
const LAST_SECOND: u64 = 253_402_300_799;

impl HttpClock {
    /// `Mon, 23 Nov 2026 15:00:00 GMT`
    pub fn at(&mut self, time: SystemTime) -> [u8; 29] {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        if self.second != Some(second) {
            self.second = Some(second);
            let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
            // A date always has this length.
            let _ = write!(&mut self.text[..], "{date}");
        }
        self.text
    }
}

impl Default for HttpClock {
    fn default() -> Self {
        Self {
            second: None,
            text: *b"Thu, 01 Jan 1970 00:00:00 GMT",
        }
    }
}

fn two(n: u8) -> [u8; 2] {
    [b'0' + n / 10 % 10, b'0' + n % 10]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let mut clock = Clock::default();
        for (ms, rfc3339, common) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (
                1_795_446_000_007,
                "2026-11-23T15:00:00.007Z",
                "23/Nov/2026:15:00:00 +0000",
            ),
            (
                1_709_251_199_999,
                "2024-02-29T23:59:59.999Z",
                "29/Feb/2024:23:59:59 +0000",
            ),
        ] {
            let at = UNIX_EPOCH + Duration::from_millis(ms);
            // Twice: computed, then kept.
            for _ in 0..2 {
                let mut out = Vec::new();
                clock.push_rfc3339(&mut out, at);
                assert_eq!(String::from_utf8_lossy(&out), rfc3339);
                let mut out = Vec::new();
                clock.push_common(&mut out, at);
                assert_eq!(String::from_utf8_lossy(&out), common);
            }
        }
    }

    #[test]
    fn dates_of_http() {
        let mut clock = HttpClock::default();
        for (second, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1 << 40, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(second);
            for _ in 0..2 {
                assert_eq!(String::from_utf8_lossy(&clock.at(at)), text);
            }
        }
    }

    #[test]
    fn times_out_of_range_do_not_panic() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        clock.push_rfc3339(&mut out, UNIX_EPOCH - Duration::from_secs(5));
        clock.push_rfc3339(&mut out, UNIX_EPOCH + Duration::from_secs(1 << 40));
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.starts_with("1970-01-01T00:00:00.000Z9999-"), "{text}");
    }
}
