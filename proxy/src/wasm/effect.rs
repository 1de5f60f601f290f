//! Effects that a suspended call asks for (PACKED.md, "Suspend and resume"), as they lie in its verdict.

use super::bad_verdict::BadVerdict;
use super::raw_op::{RawOp, field};
use crate::head::is_token;
use crate::head::target::{is_authority, is_origin_form};

const SLEEP_MS_MAX: u32 = 60_000;
const CALL_MS_MAX: u32 = 60_000;
const CALL_MS_DEFAULT: u32 = 1000;
const RESPONSE_BYTES_MAX: u32 = 16 * 1024 * 1024;
const RESPONSE_BYTES_DEFAULT: u32 = 64 * 1024;
const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Says that a compare-and-set expects no value to be there.
const NO_VALUE: u32 = u32::MAX;
/// Operations of one call: its request line, and as many fields as a listener takes.
const CALL_OPERATIONS_MAX: usize = 128;

/// One checked effect. Times to live are in milliseconds, 0 for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    Sleep {
        ms: u32,
    },
    Call(Call<'a>),
    Get {
        key: &'a [u8],
    },
    Set {
        key: &'a [u8],
        ttl_ms: u64,
        value: &'a [u8],
    },
    CompareAndSet {
        key: &'a [u8],
        ttl_ms: u64,
        /// None: the key must not be there.
        expected: Option<&'a [u8]>,
        value: &'a [u8],
    },
    Increment {
        key: &'a [u8],
        delta: i64,
        /// Of a key that is made by this.
        ttl_ms: u64,
    },
    Delete {
        key: &'a [u8],
    },
}

/// An HTTP call, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Index into the plan's pools; in range, and `called` there.
    pub pool: usize,
    pub method: &'a [u8],
    /// Path with query.
    pub target: &'a [u8],
    pub authority: Option<&'a [u8]>,
    pub body: &'a [u8],
    pub timeout_ms: u32,
    /// Bytes that the body of the response may have.
    pub response_bytes: u32,
    /// The operations, for the fields among them.
    operations: &'a [u8],
}

impl<'a> Call<'a> {
    /// The field lines to send, in order. Names may be in upper case.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.operations;
        std::iter::from_fn(move || {
            loop {
                // `read` went over the same bytes, so this only fails at their end.
                let (raw, after) = RawOp::split(rest).ok()?;
                rest = after;
                if raw.code == 2 {
                    return Some((raw.name, raw.value));
                }
            }
        })
    }

    fn read(operations: &'a [u8], called: Option<&[bool]>) -> Result<Self, BadVerdict> {
        let mut call = Call {
            pool: usize::MAX,
            method: b"GET",
            target: b"/",
            authority: None,
            body: b"",
            timeout_ms: CALL_MS_DEFAULT,
            response_bytes: RESPONSE_BYTES_DEFAULT,
            operations,
        };
        let mut seen = 0u64;
        let mut count = 0;
        let mut rest = operations;
        while !rest.is_empty() {
            let (raw, after) = RawOp::split(rest)?;
            rest = after;
            count += 1;
            if count > CALL_OPERATIONS_MAX {
                return Err(BadVerdict::TooMany);
            }
            let bad = Err(BadVerdict::Argument(raw.code));
            if raw.code == 2 {
                field(raw.name, raw.value)?;
                continue;
            }
            // Codes of calls are below 128; each but that of fields is there once.
            let bit = 1u64 << (raw.code % 64);
            if !raw.name.is_empty() || seen & bit != 0 {
                return bad;
            }
            seen |= bit;
            match raw.code {
                16 if is_origin_form(raw.value) => call.target = raw.value,
                17 if is_authority(raw.value) => call.authority = Some(raw.value),
                32 => {
                    let index = raw.number()? as usize;
                    may_call(index, called)?;
                    call.pool = index;
                }
                35 if (1..=CALL_MS_MAX).contains(&raw.number()?) => {
                    call.timeout_ms = raw.number()?
                }
                49 => call.body = raw.value,
                82 if is_token(raw.value) && raw.value != b"CONNECT" => call.method = raw.value,
                83 if raw.number()? <= RESPONSE_BYTES_MAX => call.response_bytes = raw.number()?,
                16 | 17 | 35 | 82 | 83 => return bad,
                other => return Err(BadVerdict::OperationNotAllowed(other)),
            }
        }
        if call.pool == usize::MAX {
            return Err(BadVerdict::Argument(81));
        }
        Ok(call)
    }
}

impl<'a> Effect<'a> {
    /// Reads operation `raw`, which is an effect; `called` says which pools of the plan may be called, and is none when
    /// that was checked before.
    pub(super) fn read(raw: &RawOp<'a>, called: Option<&[bool]>) -> Result<Self, BadVerdict> {
        let bad = BadVerdict::Argument(raw.code);
        let key = match raw.code {
            80 | 81 if raw.name.is_empty() => raw.name,
            84..=88 if (1..=KEY_BYTES_MAX).contains(&raw.name.len()) => raw.name,
            _ => return Err(bad),
        };
        let effect = match raw.code {
            80 => Effect::Sleep { ms: raw.number()? },
            81 => Effect::Call(Call::read(raw.value, called)?),
            84 if raw.value.is_empty() => Effect::Get { key },
            88 if raw.value.is_empty() => Effect::Delete { key },
            85 => {
                let (ttl_ms, value) = u64_of(raw.value).ok_or(bad.clone())?;
                Effect::Set { key, ttl_ms, value }
            }
            86 => {
                let (ttl_ms, rest) = u64_of(raw.value).ok_or(bad.clone())?;
                let (length, rest) = rest.split_first_chunk::<4>().ok_or(bad.clone())?;
                let (expected, value) = match u32::from_le_bytes(*length) {
                    NO_VALUE => (None, rest),
                    length => rest
                        .split_at_checked(length as usize)
                        .map(|(expected, value)| (Some(expected), value))
                        .ok_or(bad.clone())?,
                };
                Effect::CompareAndSet {
                    key,
                    ttl_ms,
                    expected,
                    value,
                }
            }
            87 => {
                let (delta, rest) = u64_of(raw.value).ok_or(bad.clone())?;
                let (ttl_ms, rest) = u64_of(rest).ok_or(bad.clone())?;
                if !rest.is_empty() {
                    return Err(bad);
                }
                Effect::Increment {
                    key,
                    delta: delta as i64,
                    ttl_ms,
                }
            }
            _ => return Err(bad),
        };
        let fits = match effect {
            Effect::Sleep { ms } => ms <= SLEEP_MS_MAX,
            Effect::Set { value, .. } => value.len() <= VALUE_BYTES_MAX,
            Effect::CompareAndSet {
                value, expected, ..
            } => {
                value.len() <= VALUE_BYTES_MAX
                    && expected.is_none_or(|expected| expected.len() <= VALUE_BYTES_MAX)
            }
            _ => true,
        };
        if fits { Ok(effect) } else { Err(bad) }
    }
}

fn may_call(index: usize, called: Option<&[bool]>) -> Result<(), BadVerdict> {
    let Some(called) = called else { return Ok(()) };
    match called.get(index) {
        Some(true) => Ok(()),
        Some(false) => Err(BadVerdict::NotCalled(index)),
        None => Err(BadVerdict::Pool {
            index,
            pools: called.len(),
        }),
    }
}

fn u64_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::super::{Effects, Kind, Op, Phase, Rules, Verdict, Writer};
    use super::*;

    fn rules() -> Rules {
        Rules {
            called: vec![true, false].into(),
            effects: Effects::HTTP_CALL | Effects::KEY_VALUE,
            ..Rules::new(Phase::Request, 2)
        }
    }

    fn read(ops: &[(u8, &[u8], Vec<u8>)]) -> Result<Verdict, BadVerdict> {
        let mut writer = Writer::new(Kind::Suspend);
        for (code, name, value) in ops {
            writer.op(*code, name, value);
        }
        Verdict::read(writer.finish(), &rules())
    }

    fn call(ops: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Suspend);
        for (code, name, value) in ops {
            writer.op(*code, name, value);
        }
        writer.finish()[1..].to_vec()
    }

    #[test]
    fn effects_are_read_as_the_document_says() {
        let pool = 0u32.to_le_bytes();
        let request = call(&[
            (32, b"", &pool),
            (82, b"", b"POST"),
            (16, b"", b"/check?x"),
            (17, b"", b"auth.lab"),
            (2, b"X-A", b"1"),
            (2, b"x-a", b"2"),
            (35, b"", &50u32.to_le_bytes()),
            (49, b"", b"body"),
        ]);
        let mut swap = 7u64.to_le_bytes().to_vec();
        swap.extend(1u32.to_le_bytes());
        swap.extend(b"ab");
        let mut count = (-3i64).to_le_bytes().to_vec();
        count.extend(9u64.to_le_bytes());
        let verdict = read(&[
            (80, b"", 5u32.to_le_bytes().to_vec()),
            (81, b"", request),
            (84, b"k", vec![]),
            (86, b"k", swap),
            (87, b"k", count),
            (65, b"", 4u64.to_le_bytes().to_vec()),
        ])
        .unwrap();
        let ops: Vec<Op<'_>> = verdict.ops().collect();
        assert_eq!(ops[0], Op::Effect(Effect::Sleep { ms: 5 }));
        let Op::Effect(Effect::Call(made)) = ops[1] else {
            panic!("{ops:?}");
        };
        assert_eq!(
            (made.pool, made.method, made.target),
            (0, &b"POST"[..], &b"/check?x"[..])
        );
        assert_eq!((made.timeout_ms, made.response_bytes), (50, 65536));
        assert_eq!(made.body, b"body");
        let fields: Vec<_> = made.fields().collect();
        assert_eq!(fields, [(&b"X-A"[..], &b"1"[..]), (b"x-a", b"2")]);
        assert_eq!(ops[2], Op::Effect(Effect::Get { key: b"k" }));
        let swapped = Effect::CompareAndSet {
            key: b"k",
            ttl_ms: 7,
            expected: Some(b"a"),
            value: b"b",
        };
        assert_eq!(ops[3], Op::Effect(swapped));
        let counted = Effect::Increment {
            key: b"k",
            delta: -3,
            ttl_ms: 9,
        };
        assert_eq!(ops[4], Op::Effect(counted));
        assert_eq!(ops[5], Op::Token(4));
    }

    #[test]
    fn what_cannot_be_performed_is_a_fault() {
        let pool = |n: u32| n.to_le_bytes();
        for (code, name, value) in [
            (80u8, &b""[..], 60_001u32.to_le_bytes().to_vec()),
            (80, b"x", 1u32.to_le_bytes().to_vec()),
            (81, b"", vec![]),
            (81, b"", call(&[(32, b"", &pool(0)), (32, b"", &pool(0))])),
            (81, b"", call(&[(32, b"", &pool(1))])),
            (81, b"", call(&[(32, b"", &pool(2))])),
            (81, b"", call(&[(32, b"", &pool(0)), (16, b"", b"x")])),
            (81, b"", call(&[(32, b"", &pool(0)), (82, b"", b"CONNECT")])),
            (81, b"", call(&[(32, b"", &pool(0)), (2, b"host", b"x")])),
            (81, b"", call(&[(32, b"", &pool(0)), (1, b"a", b"x")])),
            (81, b"", call(&[(32, b"", &pool(0)), (35, b"", &[0; 4])])),
            (84, b"", vec![]),
            (84, b"k", vec![1]),
            (84, &[b'k'; 1025], vec![]),
            (85, b"k", vec![0; 7]),
            (86, b"k", vec![0; 11]),
            (
                86,
                b"k",
                [[0u8; 8].as_slice(), &9u32.to_le_bytes(), b"x"].concat(),
            ),
            (87, b"k", vec![0; 17]),
        ] {
            let read = read(&[(code, name, value.clone())]);
            assert!(read.is_err(), "{code} {name:?} {value:?}");
        }
        assert_eq!(read(&[]), Err(BadVerdict::NoEffect));
        let sleeps: Vec<_> = (0..17).map(|_| (80u8, &b""[..], vec![0; 4])).collect();
        assert_eq!(read(&sleeps), Err(BadVerdict::TooManyEffects));
    }

    #[test]
    fn what_was_not_announced_is_a_fault() {
        let mut writer = Writer::new(Kind::Suspend);
        let block = writer.op(84, b"k", b"").finish();
        let bare = Rules::new(Phase::Request, 0);
        assert_eq!(
            Verdict::read(block, &bare),
            Err(BadVerdict::NotAnnounced("key-value"))
        );
    }
}
