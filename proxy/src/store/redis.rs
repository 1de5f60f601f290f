//! The store in Redis: the operations as commands, and as scripts where a command would not be atomic.

mod circuit;
mod line;

pub(super) use line::Line;

use super::counts::{OpKind, OpResult, SharedCounts};
use super::{Sample, StoreAnswer, StoreError, StoreOp, VALUE_BYTES_MAX, number, ttl_millis};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisError, RedisResult, Script, Value, cmd};
use bytes::Bytes;

/// Begins every key, so that the proxy's lie together among those of others.
const PREFIX: &str = "sluicegate:";

/// Answers 1 when it was set, else what is there.
const COMPARE_AND_SET: &str = r"
local there = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
    if there ~= ARGV[2] then return there end
elseif there then
    return there
end
if ARGV[4] == '' then
    redis.call('SET', KEYS[1], ARGV[3])
else
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1";

/// Answers the sum as text: a number of Lua's would lose digits.
const INCREMENT: &str = r"
local new = redis.call('EXISTS', KEYS[1]) == 0
redis.call('INCRBY', KEYS[1], ARGV[1])
if new then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])";

/// What the stores of one namespace in Redis share over the workers.
pub(super) struct Redis {
    prefix: Box<[u8]>,
    counts: SharedCounts,
}

/// The scripts with their digests.
pub(super) struct Scripts {
    compare_and_set: Script,
    increment: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            compare_and_set: Script::new(COMPARE_AND_SET),
            increment: Script::new(INCREMENT),
        }
    }
}

impl Redis {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            prefix: prefix(namespace).into_bytes().into(),
            counts: SharedCounts::default(),
        }
    }

    pub(super) async fn run(
        &self,
        line: &Line,
        op: &StoreOp<'_>,
    ) -> Result<StoreAnswer, StoreError> {
        let result = match op.check(VALUE_BYTES_MAX) {
            Ok(()) => line.run(&self.key(op.key()), op).await,
            Err(error) => Err(error),
        };
        let kind = OpKind::of(op);
        self.counts.count(kind, OpResult::of(kind, &result));
        result
    }

    pub(super) fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        self.counts.add_to(&mut sample);
        sample
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

/// What the keys of `namespace` begin with. No two namespaces have one that begins the other's.
fn prefix(namespace: &str) -> String {
    let namespace = namespace.replace('%', "%25").replace(':', "%3A");
    format!("{PREFIX}{namespace}:")
}

/// Asks for `op` on `key`, which has its prefix, and says what the answer means.
async fn ask(
    connection: &mut MultiplexedConnection,
    scripts: &Scripts,
    key: &[u8],
    op: &StoreOp<'_>,
) -> RedisResult<Result<StoreAnswer, StoreError>> {
    let answer = match *op {
        StoreOp::Get { .. } => query(cmd("GET").arg(key), connection).await?,
        StoreOp::Set { value, ttl, .. } => {
            let mut set = cmd("SET");
            set.arg(key).arg(value);
            if let Some(ttl) = ttl {
                set.arg("PX").arg(ttl_millis(ttl));
            }
            query(&set, connection).await?
        }
        StoreOp::CompareAndSet {
            expected,
            value,
            ttl,
            ..
        } => {
            let mut call = scripts.compare_and_set.prepare_invoke();
            call.key(key).arg(i32::from(expected.is_some()));
            call.arg(expected.unwrap_or_default()).arg(value);
            match ttl {
                Some(ttl) => call.arg(ttl_millis(ttl)),
                None => call.arg(""),
            };
            match call.invoke_async(connection).await? {
                Value::Int(_) => Value::Okay,
                there => there,
            }
        }
        StoreOp::Increment { delta, ttl, .. } => {
            let sum = match ttl {
                None => query(cmd("INCRBY").arg(key).arg(delta), connection).await?,
                Some(ttl) => {
                    let mut call = scripts.increment.prepare_invoke();
                    call.key(key).arg(delta).arg(ttl_millis(ttl));
                    call.invoke_async(connection).await?
                }
            };
            match sum {
                Value::BulkString(text) => match number(&text) {
                    Some(sum) => Value::Int(sum),
                    None => Value::BulkString(text),
                },
                sum => sum,
            }
        }
        StoreOp::Delete { .. } => match query(cmd("DEL").arg(key), connection).await? {
            Value::Int(0) => Value::Nil,
            _ => Value::Okay,
        },
    };
    Ok(match answer {
        Value::Okay => Ok(StoreAnswer::Done),
        Value::Nil => Ok(StoreAnswer::Absent),
        Value::Int(n) => Ok(StoreAnswer::Number(n)),
        // Others may have written it.
        Value::BulkString(value) if value.len() > VALUE_BYTES_MAX => Err(StoreError::ValueTooLarge),
        Value::BulkString(value) => Ok(StoreAnswer::Value(Bytes::from(value))),
        _ => Err(StoreError::Unavailable("an answer of another kind".into())),
    })
}

async fn query(command: &Cmd, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
    command.query_async(connection).await
}

/// What an error that Redis answered means; none when the connection is at fault and not the operation.
fn meaning(error: &RedisError) -> Option<StoreError> {
    let code = error.code()?;
    let detail = error.detail().unwrap_or_default();
    Some(if detail.contains("would overflow") {
        StoreError::Overflow
    } else if detail.contains("not an integer") {
        StoreError::NotANumber
    } else {
        StoreError::Unavailable(format!("Redis answers {code} {detail}").into())
    })
}
