//! Timestamps as logs write them, with the civil date computed once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// Renders times in UTC. Keeps the text of the last second, since neighbouring records mostly share it; a time out of
/// range (before 1970 or after 9999) is rendered as the nearest one in range.
#[derive(Debug, Clone)]
pub struct Clock {
    second: Option<u64>,
    /// `2026-11-23T15:00:00`
    rfc3339: [u8; 19],
    /// `23/Nov/2026:15:00:00 +0000`
    common: [u8; 26],
    /// `Mon, 23 Nov 2026 15:00:00 GMT`
    http: [u8; 29],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            second: None,
            rfc3339: *b"1970-01-01T00:00:00",
            common: *b"01/Jan/1970:00:00:00 +0000",
            http: *b"Thu, 01 Jan 1970 00:00:00 GMT",
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

    /// `Mon, 23 Nov 2026 15:00:00 GMT`, as HTTP has it (RFC 9110 §5.6.7).
    pub fn http(&mut self, time: SystemTime) -> [u8; 29] {
        self.turn_to(time);
        self.http
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
        let h = &mut self.http;
        let weekday = at.weekday().to_monday_zero_offset().unsigned_abs();
        h[0..3].copy_from_slice(WEEKDAYS[usize::from(weekday % 7)]);
        h[5..7].copy_from_slice(&two(day));
        h[8..11].copy_from_slice(MONTHS[usize::from(month.clamp(1, 12) - 1)]);
        h[12..14].copy_from_slice(&century);
        h[14..16].copy_from_slice(&rest);
        for (i, value) in time.into_iter().enumerate() {
            h[17 + 3 * i..19 + 3 * i].copy_from_slice(&two(value));
            r[11 + 3 * i..13 + 3 * i].copy_from_slice(&two(value));
            c[12 + 3 * i..14 + 3 * i].copy_from_slice(&two(value));
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
    fn all_forms() {
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
                let http = httpdate::fmt_http_date(at);
                assert_eq!(String::from_utf8_lossy(&clock.http(at)), http);
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
