//! Calls of HTTP services: the pools that the filter declared by [`Setup::called_pool`](crate::Setup::called_pool) and
//! that the YAML grants. Awaited inside of a verdict that comes [later](crate::Verdict::later).

use std::time::Duration;

use crate::effect::executor::Outcome;
use crate::effect::{Effect, Error, operation};
use crate::text::Text;
use crate::verdict::{CalledPool, op};

const TIMEOUT_MS_MAX: u128 = 60_000;

/// Sends a request to an endpoint of `pool` and waits for the whole response. Any status is a response.
pub async fn call(pool: CalledPool, request: CallRequest) -> Result<CallResponse, Error> {
    let mut value = Vec::with_capacity(request.operations.len() + 16);
    operation::write(&mut value, op::POOL, b"", &pool.0.to_le_bytes());
    value.extend_from_slice(&request.operations);
    let mut asking = Vec::with_capacity(value.len() + 8);
    operation::write(&mut asking, operation::CALL, b"", &value);
    Effect::new(asking, |outcome| {
        Some(match outcome {
            Outcome::Response(operations) => Ok(CallResponse { operations }),
            Outcome::Failed(error) => Err(error),
            _ => Err(Error::Malformed),
        })
    })
    .await
}

/// A request to a service. Each part but [`header`](Self::header) is to be said once.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRequest {
    operations: Vec<u8>,
}

impl CallRequest {
    /// `path_and_query` starts with `/`.
    pub fn new(method: &str, path_and_query: impl AsRef<[u8]>) -> Self {
        let request = Self {
            operations: Vec::new(),
        };
        request.put(operation::METHOD, b"", method.as_bytes()).put(
            op::PATH,
            b"",
            path_and_query.as_ref(),
        )
    }

    pub fn get(path_and_query: impl AsRef<[u8]>) -> Self {
        Self::new("GET", path_and_query)
    }

    pub fn post(path_and_query: impl AsRef<[u8]>) -> Self {
        Self::new("POST", path_and_query)
    }

    /// One more field line. Content-Length and the like are the proxy's.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(op::APPEND, name.as_bytes(), value.as_ref())
    }

    /// Host and port that the service is told; without, the endpoint's address.
    pub fn authority(self, authority: impl AsRef<[u8]>) -> Self {
        self.put(op::AUTHORITY, b"", authority.as_ref())
    }

    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        self.put(op::BODY, b"", body.as_ref())
    }

    /// For the whole call, a second if it is not said. From 1 ms to 60 s: what lies outside is taken for the nearer end.
    pub fn timeout(self, timeout: Duration) -> Self {
        let ms = timeout.as_millis().clamp(1, TIMEOUT_MS_MAX) as u32;
        self.put(op::TRY_TIMEOUT, b"", &ms.to_le_bytes())
    }

    /// Bytes that the body of the response may have, 64 KiB if it is not said, 16 MiB at most. A larger response is
    /// [`Error::TooLarge`].
    pub fn response_max(self, bytes: u32) -> Self {
        self.put(operation::RESPONSE_BYTES, b"", &bytes.to_le_bytes())
    }

    fn put(mut self, code: u8, name: &[u8], value: &[u8]) -> Self {
        operation::write(&mut self.operations, code, name, value);
        self
    }
}

/// What a service answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallResponse {
    operations: Vec<u8>,
}

impl CallResponse {
    pub fn status(&self) -> u16 {
        let value = self.last(op::STATUS);
        value.try_into().map_or(0, u16::from_le_bytes)
    }

    /// The field lines in order: lower-case name and value.
    pub fn fields(&self) -> impl Iterator<Item = (Text<'_>, Text<'_>)> {
        operation::read(&self.operations)
            .filter(|(code, ..)| *code == op::APPEND)
            .map(|(_, name, value)| (Text::new(name), Text::new(value)))
    }

    /// The first line of `name`, in any case.
    pub fn field(&self, name: &str) -> Option<Text<'_>> {
        let mut named = self
            .fields()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        named.next().map(|(_, value)| value)
    }

    pub fn body(&self) -> &[u8] {
        self.last(op::BODY)
    }

    fn last(&self, code: u8) -> &[u8] {
        operation::read(&self.operations)
            .filter(|(c, ..)| *c == code)
            .last()
            .map_or(&[], |(_, _, value)| value)
    }
}
