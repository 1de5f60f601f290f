//! What became of a suspended call's effects, laid out for `on-resume` (PACKED.md, "Suspend and resume").

use std::borrow::Cow;

use bytes::Bytes;

use super::facts::Facts;
use crate::head::Fields;

const FORMAT: u16 = 1;
const HEADER: usize = 64;
const FLAG_TLS: u16 = 1;
const FLAG_HTTP2: u16 = 2;
const FLAG_BODY: u16 = 4;

/// What became of one effect.
#[derive(Debug, Clone)]
pub enum EffectResult {
    /// Slept, set, deleted.
    Done,
    /// The called service answered, with whatever status. Names are in lower case.
    Response {
        status: u16,
        fields: Fields,
        body: Bytes,
    },
    /// What was found, or the sum after an increment (i64, little-endian).
    Value(Bytes),
    /// There is no value of that key.
    NoValue,
    /// It failed; the words are for people.
    Failed(EffectError, Cow<'static, str>),
}

/// How an effect fails, as the guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffectError {
    /// It was not done in time.
    Timeout,
    /// The service, or the store, cannot be reached or refuses.
    Refused,
    /// The response, or the value, is larger than it may be.
    TooLarge,
    /// What came back is no valid message.
    Malformed,
    /// A limit was reached, or nobody is there who could do it.
    Unavailable,
    /// What was asked for does not fit what is there.
    Invalid,
    /// The exchange ended before it was done.
    Cancelled,
}

impl EffectError {
    /// The word in the block.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What the header of a resume repeats of the call that suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    pub token: u64,
    pub state: u64,
    /// From [`flags_of`].
    pub flags: u16,
}

/// The header's flags, as the call that suspended was shown them.
pub fn flags_of(facts: &Facts<'_>) -> u16 {
    (if facts.tls { FLAG_TLS } else { 0 })
        | (if facts.http2 { FLAG_HTTP2 } else { 0 })
        | (if facts.has_body { FLAG_BODY } else { 0 })
}

/// The block for `on-resume`: one result for each effect, in the order in which they were asked for.
pub fn pack_results<'a>(
    resumed: Resumed,
    results: impl IntoIterator<Item = &'a EffectResult>,
) -> Vec<u8> {
    let mut block = Vec::with_capacity(256);
    block.resize(HEADER, 0);
    block[0..2].copy_from_slice(&FORMAT.to_le_bytes());
    block[8..12].copy_from_slice(&(HEADER as u32).to_le_bytes());
    block[14..16].copy_from_slice(&resumed.flags.to_le_bytes());
    block[16..24].copy_from_slice(&resumed.state.to_le_bytes());
    block[56..64].copy_from_slice(&resumed.token.to_le_bytes());
    for result in results {
        match result {
            EffectResult::Done => operation(&mut block, 96, b"", |_| {}),
            EffectResult::Response {
                status,
                fields,
                body,
            } => operation(&mut block, 97, b"", |block| {
                operation(block, 48, b"", |block| {
                    block.extend_from_slice(&status.to_le_bytes());
                });
                for (name, value) in fields.iter() {
                    operation(block, 2, name, |block| block.extend_from_slice(value));
                }
                operation(block, 49, b"", |block| block.extend_from_slice(body));
            }),
            EffectResult::Value(value) => {
                operation(&mut block, 98, b"", |block| block.extend_from_slice(value));
            }
            EffectResult::NoValue => operation(&mut block, 99, b"", |_| {}),
            EffectResult::Failed(error, why) => {
                operation(&mut block, 100, error.as_str().as_bytes(), |block| {
                    block.extend_from_slice(why.as_bytes());
                });
            }
        }
    }
    block
}

/// Writes one operation, whose value `value` appends. Names are those of fields, which heads bound far below 64 KiB, and
/// values are bounded by whoever made the result; what does not fit its length all the same is cut.
fn operation(block: &mut Vec<u8>, code: u8, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    let name = &name[..name.len().min(usize::from(u16::MAX))];
    block.extend_from_slice(&[code, 0]);
    block.extend_from_slice(&(name.len() as u16).to_le_bytes());
    let length_at = block.len();
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(name);
    let value_at = block.len();
    value(block);
    let length = u32::try_from(block.len() - value_at).unwrap_or(u32::MAX);
    block.truncate(value_at.saturating_add(length as usize));
    block[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::raw_op::RawOp;
    use super::*;

    fn ops(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        let mut ops = Vec::new();
        while !bytes.is_empty() {
            let (raw, rest) = RawOp::split(bytes).unwrap();
            ops.push((raw.code, raw.name.to_vec(), raw.value.to_vec()));
            bytes = rest;
        }
        ops
    }

    #[test]
    fn results_read_as_the_document_says() {
        let mut fields = Fields::default();
        fields.append(b"x-a", b"1");
        fields.append(b"x-a", b"2");
        let resumed = Resumed {
            token: 7,
            state: 9,
            flags: FLAG_TLS | FLAG_BODY,
        };
        let results = [
            EffectResult::Done,
            EffectResult::Response {
                status: 404,
                fields,
                body: Bytes::from_static(b"no"),
            },
            EffectResult::Value(Bytes::from_static(b"v")),
            EffectResult::NoValue,
            EffectResult::Failed(EffectError::TooLarge, "more than 5 bytes".into()),
        ];
        let block = pack_results(resumed, &results);
        assert_eq!(block[..12], [1, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0]);
        assert_eq!(block[14..16], 5u16.to_le_bytes());
        assert_eq!(block[16..24], 9u64.to_le_bytes());
        assert_eq!(block[56..64], 7u64.to_le_bytes());
        let read = ops(&block[64..]);
        let codes: Vec<u8> = read.iter().map(|op| op.0).collect();
        assert_eq!(codes, [96, 97, 98, 99, 100]);
        assert_eq!(
            ops(&read[1].2),
            [
                (48, vec![], 404u16.to_le_bytes().to_vec()),
                (2, b"x-a".to_vec(), b"1".to_vec()),
                (2, b"x-a".to_vec(), b"2".to_vec()),
                (49, vec![], b"no".to_vec()),
            ]
        );
        assert_eq!(read[2].2, b"v");
        assert_eq!(read[4].1, b"too-large");
        assert_eq!(read[4].2, b"more than 5 bytes");
    }
}
