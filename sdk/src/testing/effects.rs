//! Performs effects for the harness: a store in memory, a clock that sleeps move, and calls that the test answers.

use std::collections::HashMap;

use super::message::{Fields, TestResponse};
use crate::effect::operation::{self, read, write};
use crate::effect::{Error, executor};
use crate::head::{FORMAT, HEADER};
use crate::plan::Plan;
use crate::verdict::{SUSPEND, op};

/// What the host takes in one verdict, and how often one call may suspend.
const EFFECTS_MAX: usize = 16;
const ROUNDS_MAX: usize = 64;

/// A call of an HTTP service, as the test is shown it.
#[derive(Debug, Clone, Default)]
pub struct TestCall {
    /// Name of the pool.
    pub pool: String,
    pub method: String,
    /// Path with query.
    pub path: String,
    pub authority: Option<String>,
    pub body: Vec<u8>,
    pub timeout_ms: u32,
    pub(crate) fields: Fields,
}

impl TestCall {
    /// The first line of a field, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()
    }
}

type Answers = Box<dyn FnMut(&TestCall) -> Result<TestResponse, Error>>;

/// The world outside of the filter.
#[derive(Default)]
pub(super) struct World {
    /// Value, and when it goes.
    store: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    pub(super) now_ms: u64,
    pub(super) answers: Option<Answers>,
}

impl World {
    /// Performs what `block` asks for, and what follows, until there is a verdict, which is answered with the filter's
    /// state. Panics where the host would see a fault.
    #[track_caller]
    pub(super) fn decide(
        &mut self,
        plan: &Plan,
        mut state: u64,
        mut block: Vec<u8>,
    ) -> (Vec<u8>, u64) {
        for _ in 0..=ROUNDS_MAX {
            if block.first() != Some(&SUSPEND) {
                return (block, state);
            }
            let asked = asked(&block[1..]);
            state = state_of(&block[1..]).unwrap_or(state);
            let token = token_of(&block[1..]);
            let begun = self.now_ms;
            let mut until = begun;
            let mut results = header(token, state);
            for effect in asked {
                self.now_ms = begun;
                self.perform(plan, effect, &mut results);
                until = until.max(self.now_ms);
            }
            self.now_ms = until;
            block = executor::resume(&results);
        }
        panic!("the host lets no call suspend more than {ROUNDS_MAX} times");
    }

    /// The client leaves while the call waits.
    pub(super) fn cancel(&mut self, state: u64, block: &[u8]) {
        if block.first() != Some(&SUSPEND) {
            return;
        }
        let mut results = header(token_of(&block[1..]), state);
        for _ in asked(&block[1..]) {
            fail(&mut results, Error::Cancelled);
        }
        executor::resume(&results);
    }

    pub(super) fn stored(&self, key: &[u8]) -> Option<&[u8]> {
        let (value, until) = self.store.get(key)?;
        (*until > self.now_ms).then_some(value)
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], ttl_ms: u64) {
        let until = match ttl_ms {
            0 => u64::MAX,
            ms => self.now_ms.saturating_add(ms),
        };
        self.store.insert(key.to_vec(), (value.to_vec(), until));
    }

    #[track_caller]
    fn perform(
        &mut self,
        plan: &Plan,
        (code, key, value): (u8, &[u8], &[u8]),
        results: &mut Vec<u8>,
    ) {
        if matches!(code, operation::GET..=operation::DELETE) {
            assert!(
                plan.effects.key_value,
                "the host would refuse this verdict: `Setup::uses_store` was not called"
            );
            let length = key.len();
            assert!(
                (1..=1024).contains(&length),
                "the host would refuse this verdict: a key of {length} bytes"
            );
        }
        match code {
            operation::SLEEP => {
                self.now_ms += u64::from(u32_of(value));
                write(results, operation::DONE, b"", b"");
            }
            operation::CALL => self.call(plan, value, results),
            operation::GET => answer(results, self.stored(key)),
            operation::SET => {
                let (ttl, value) = value.split_at(8);
                self.put(key, value, u64_of(ttl));
                write(results, operation::DONE, b"", b"");
            }
            operation::COMPARE_AND_SET => {
                let (ttl, rest) = value.split_at(8);
                let (length, rest) = rest.split_at(4);
                let (expected, value) = match u32_of(length) {
                    u32::MAX => (None, rest),
                    length => {
                        let (expected, value) = rest.split_at(length as usize);
                        (Some(expected), value)
                    }
                };
                if self.stored(key) == expected {
                    self.put(key, value, u64_of(ttl));
                    write(results, operation::DONE, b"", b"");
                } else {
                    answer(results, self.stored(key));
                }
            }
            operation::INCREMENT => {
                let (by, ttl) = value.split_at(8);
                let there = self.stored(key).map(<[u8]>::to_vec);
                let number = match &there {
                    None => Some(0),
                    Some(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()),
                };
                let sum = number.and_then(|n: i64| n.checked_add(u64_of(by) as i64));
                let Some(sum) = sum else {
                    return fail(results, Error::Invalid);
                };
                match self.store.get_mut(key).filter(|_| there.is_some()) {
                    Some((value, _)) => *value = sum.to_string().into_bytes(),
                    None => self.put(key, sum.to_string().as_bytes(), u64_of(ttl)),
                }
                write(results, operation::VALUE, b"", &sum.to_le_bytes());
            }
            _ => {
                self.store.remove(key);
                write(results, operation::DONE, b"", b"");
            }
        }
    }

    #[track_caller]
    fn call(&mut self, plan: &Plan, operations: &[u8], results: &mut Vec<u8>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut call = TestCall {
            timeout_ms: 1000,
            ..TestCall::default()
        };
        let mut bytes_max = 64 * 1024;
        for (code, name, value) in read(operations) {
            match code {
                op::POOL => call.pool = plan.pools[u32_of(value) as usize].name.clone(),
                operation::METHOD => call.method = text(value),
                op::PATH => call.path = text(value),
                op::AUTHORITY => call.authority = Some(text(value)),
                op::APPEND => {
                    let name = text(name).to_ascii_lowercase();
                    call.fields.push((name, value.to_vec()));
                }
                op::TRY_TIMEOUT => call.timeout_ms = u32_of(value),
                operation::RESPONSE_BYTES => bytes_max = u32_of(value) as usize,
                _ => call.body = value.to_vec(),
            }
        }
        let Some(answers) = &mut self.answers else {
            panic!(
                "the filter calls {}: `Harness::on_call` says what comes back",
                call.path
            );
        };
        match answers(&call) {
            Ok(response) if response.body.len() > bytes_max => fail(results, Error::TooLarge),
            Ok(response) => {
                let mut value = Vec::new();
                write(&mut value, op::STATUS, b"", &response.status.to_le_bytes());
                for (name, line) in &response.fields {
                    write(&mut value, op::APPEND, name.as_bytes(), line);
                }
                write(&mut value, op::BODY, b"", &response.body);
                write(results, operation::RESPONSE, b"", &value);
            }
            Err(error) => {
                if error == Error::Timeout {
                    self.now_ms += u64::from(call.timeout_ms);
                }
                fail(results, error);
            }
        }
    }
}

/// The effects of a suspending verdict, in order.
#[track_caller]
fn asked(operations: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let effects: Vec<_> = read(operations)
        .filter(|(code, ..)| *code != operation::TOKEN && *code != op::STATE)
        .collect();
    assert!(
        (1..=EFFECTS_MAX).contains(&effects.len()),
        "the host would refuse this verdict: {} effects",
        effects.len()
    );
    effects
}

fn token_of(operations: &[u8]) -> u64 {
    let mut tokens = read(operations).filter(|(code, ..)| *code == operation::TOKEN);
    tokens.next().map_or(0, |(_, _, value)| u64_of(value))
}

fn state_of(operations: &[u8]) -> Option<u64> {
    let states = read(operations).filter(|(code, ..)| *code == op::STATE);
    states.last().map(|(_, _, value)| u64_of(value))
}

fn header(token: u64, state: u64) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[0..2].copy_from_slice(&FORMAT.to_le_bytes());
    header[8..12].copy_from_slice(&(HEADER as u32).to_le_bytes());
    header[16..24].copy_from_slice(&state.to_le_bytes());
    header[56..64].copy_from_slice(&token.to_le_bytes());
    header
}

fn answer(results: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => write(results, operation::VALUE, b"", value),
        None => write(results, operation::NO_VALUE, b"", b""),
    }
}

fn fail(results: &mut Vec<u8>, error: Error) {
    let word = error.as_str().as_bytes();
    write(results, operation::FAILED, word, b"");
}

/// Of what the SDK wrote itself.
fn u32_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
