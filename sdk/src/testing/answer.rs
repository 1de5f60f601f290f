//! What the filter answered, decoded and applied as the host does.

use super::message::Fields;
use crate::field::{HOST_OWNED, is_token};
use crate::plan::{Phase, PoolUse};
use crate::verdict::{self, op};

/// What the host takes of one verdict.
const OPERATIONS_MAX: usize = 1024;

/// The verdict itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Next,
    Reply,
    Drop,
    Reset,
}

/// An answer of the filter. `field` and `fields` show the head after the edits; for a reply, the reply's.
#[derive(Debug, Clone)]
pub struct Answer {
    kind: Kind,
    called: bool,
    edited: bool,
    fields: Fields,
    path: Option<String>,
    authority: Option<String>,
    pool: Option<String>,
    sticky_key: Option<Vec<u8>>,
    endpoint: Option<String>,
    try_timeout_ms: Option<u32>,
    total_timeout_ms: Option<u32>,
    retries: Option<u32>,
    status: Option<u16>,
    body: Vec<u8>,
    state: Option<u64>,
    replaced: Option<Vec<u8>>,
    pub(super) skips_request_body: bool,
    pub(super) skips_response_body: bool,
}

impl Answer {
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the filter was called at all: its plan may leave this phase or this exchange out.
    pub fn was_called(&self) -> bool {
        self.called
    }

    pub fn is_next(&self) -> bool {
        self.kind == Kind::Next
    }

    /// Next, and nothing was edited.
    pub fn is_untouched(&self) -> bool {
        self.is_next() && !self.edited
    }

    pub fn is_drop(&self) -> bool {
        self.kind == Kind::Drop
    }

    pub fn is_reset(&self) -> bool {
        self.kind == Kind::Reset
    }

    pub fn is_reply(&self) -> bool {
        self.kind == Kind::Reply
    }

    /// The first line of a field, whose name may be in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    /// Every line of a field. A value that is not UTF-8 is left out.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .collect()
    }

    /// The new path with query, when it was changed.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The name of the pool that was chosen.
    pub fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    pub fn sticky_key(&self) -> Option<&[u8]> {
        self.sticky_key.as_deref()
    }

    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub fn try_timeout_ms(&self) -> Option<u32> {
        self.try_timeout_ms
    }

    pub fn total_timeout_ms(&self) -> Option<u32> {
        self.total_timeout_ms
    }

    pub fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The status of the reply, or the new one of the response.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// In the phases of bodies: what stands in place of what was shown, when it was replaced.
    pub fn replaced(&self) -> Option<&[u8]> {
        self.replaced.as_deref()
    }

    pub fn state(&self) -> Option<u64> {
        self.state
    }

    /// Panics where the host allows less because the head has passed: with modes `Watch` and `Transform`.
    #[track_caller]
    pub(crate) fn passed(self, watched: bool) -> Self {
        let edits = self.kind == Kind::Reply
            || self.edited && self.replaced.is_none()
            || self.status.is_some();
        assert!(
            !edits,
            "the head has passed: with this mode a piece can only be replaced"
        );
        assert!(
            !watched || self.replaced.is_none(),
            "with `BodyMode::Watch` nothing can be replaced"
        );
        self
    }

    pub(crate) fn not_called(fields: Fields) -> Self {
        Self {
            kind: Kind::Next,
            called: false,
            edited: false,
            fields,
            path: None,
            authority: None,
            pool: None,
            sticky_key: None,
            endpoint: None,
            try_timeout_ms: None,
            total_timeout_ms: None,
            retries: None,
            status: None,
            body: Vec::new(),
            state: None,
            replaced: None,
            skips_request_body: false,
            skips_response_body: false,
        }
    }

    /// Decodes a verdict and applies its edits to `fields`. Panics where the host would call it a fault.
    #[track_caller]
    pub(crate) fn decode(phase: Phase, block: &[u8], fields: Fields, pools: &[PoolUse]) -> Self {
        match Self::read(phase, block, fields, pools) {
            Ok(answer) => answer,
            Err(why) => panic!("the host would refuse this verdict: {why}"),
        }
    }

    fn read(phase: Phase, block: &[u8], fields: Fields, pools: &[PoolUse]) -> Result<Self, String> {
        let http = is_http(phase);
        let mut answer = Self::not_called(fields);
        answer.called = true;
        let Some((verdict, mut rest)) = block.split_first() else {
            return Ok(answer);
        };
        answer.kind = match *verdict {
            verdict::NEXT => Kind::Next,
            verdict::REPLY if http => Kind::Reply,
            verdict::DROP => Kind::Drop,
            verdict::RESET => Kind::Reset,
            other => return Err(format!("no verdict {other} in this phase")),
        };
        if answer.kind == Kind::Reply {
            answer.fields.clear();
        }
        let mut count = 0;
        while let Some((operation, tail)) = Operation::split(rest)? {
            count += 1;
            if count > OPERATIONS_MAX {
                return Err(format!("more than {OPERATIONS_MAX} operations"));
            }
            answer.apply(phase, &operation, pools)?;
            answer.edited |= operation.code != op::STATE;
            rest = tail;
        }
        if answer.kind == Kind::Reply && answer.status.is_none() {
            return Err("a reply without a status".into());
        }
        Ok(answer)
    }

    fn apply(
        &mut self,
        phase: Phase,
        operation: &Operation<'_>,
        pools: &[PoolUse],
    ) -> Result<(), String> {
        let request = matches!(phase, Phase::Request | Phase::RequestBody);
        let trailers = matches!(phase, Phase::RequestTrailers | Phase::ResponseTrailers);
        let http = is_http(phase) || trailers;
        let response = matches!(phase, Phase::Response | Phase::ResponseBody);
        let routes = !response && !trailers;
        let body = matches!(phase, Phase::RequestBody | Phase::ResponseBody);
        match operation.code {
            op::SET | op::APPEND | op::ADD | op::REMOVE if http => self.edit(operation)?,
            op::PATH if request => {
                let path = operation.text()?;
                if !path.starts_with('/') {
                    return Err(format!("the path `{path}` does not start with `/`"));
                }
                if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
                    return Err(format!(
                        "the path `{path}` is not visible ASCII without `#`"
                    ));
                }
                self.path = Some(path);
            }
            op::AUTHORITY if request => self.authority = Some(operation.text()?),
            op::POOL if routes => {
                let index = operation.u32()? as usize;
                let pool = pools.get(index).ok_or("a pool beyond the plan's")?;
                self.pool = Some(pool.name.clone());
            }
            op::STICKY_KEY if routes => {
                if !(1..=1024).contains(&operation.value.len()) {
                    return Err("a sticky key has 1 to 1024 bytes".into());
                }
                self.sticky_key = Some(operation.value.to_vec());
            }
            op::ENDPOINT if routes => self.endpoint = Some(operation.text()?),
            op::TRY_TIMEOUT if request => self.try_timeout_ms = Some(operation.u32()?),
            op::TOTAL_TIMEOUT if request => self.total_timeout_ms = Some(operation.u32()?),
            op::RETRIES if request => self.retries = Some(operation.u32()?),
            op::STATUS if response || self.kind == Kind::Reply => {
                let status = u16::from_le_bytes(operation.array()?);
                if !(200..=999).contains(&status) {
                    return Err(format!("status {status}"));
                }
                self.status = Some(status);
            }
            op::BODY if self.kind == Kind::Reply => self.body = operation.value.to_vec(),
            op::BODY if body && self.kind == Kind::Next => {
                self.replaced = Some(operation.value.to_vec());
            }
            op::SKIP_REQUEST_BODY if phase == Phase::Request && self.kind == Kind::Next => {
                self.skips_request_body = true;
            }
            op::SKIP_RESPONSE_BODY
                if matches!(phase, Phase::Request | Phase::Response) && self.kind == Kind::Next =>
            {
                self.skips_response_body = true;
            }
            op::STATE => self.state = Some(u64::from_le_bytes(operation.array()?)),
            code => return Err(format!("operation {code} is not allowed in {phase:?}")),
        }
        Ok(())
    }

    fn edit(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let name = std::str::from_utf8(operation.name).unwrap_or("");
        let name = &*name.to_ascii_lowercase();
        if !is_token(name) {
            return Err(format!(
                "`{}` is not a field name",
                operation.name.escape_ascii()
            ));
        }
        if HOST_OWNED.contains(&name) {
            return Err(format!("`{name}` is the host's"));
        }
        if operation
            .value
            .iter()
            .any(|b| matches!(b, b'\r' | b'\n' | 0))
        {
            return Err(format!("the value of `{name}` has CR, LF or NUL"));
        }
        let line = (name.to_owned(), operation.value.to_vec());
        let first = self.fields.iter().position(|(n, _)| n == name);
        match (operation.code, first) {
            (op::SET, Some(first)) => {
                let mut at = 0;
                self.fields.retain(|(n, _)| {
                    at += 1;
                    n != name || at - 1 == first
                });
                self.fields[first] = line;
            }
            (op::SET | op::APPEND | op::ADD, None) | (op::APPEND, Some(_)) => {
                self.fields.push(line);
            }
            (op::REMOVE, _) => self.fields.retain(|(n, _)| n != name),
            _ => {}
        }
        Ok(())
    }
}
/// What a verdict on a piece of a stream says: whether the session goes on, what replaces the piece, what is remembered.
///
/// Panics when the host would refuse the verdict.
pub(super) fn data(block: &[u8]) -> (bool, Option<Vec<u8>>, Option<u64>) {
    let (mut replaced, mut state) = (None, None);
    let Some((kind, mut rest)) = block.split_first() else {
        return (true, None, None);
    };
    let passes = match *kind {
        verdict::NEXT => true,
        verdict::DROP | verdict::RESET => false,
        other => panic!("the host would refuse verdict {other}"),
    };
    let refused = |why: String| panic!("the host would refuse this verdict: {why}");
    while let Some((operation, tail)) = Operation::split(rest).unwrap_or_else(refused) {
        match operation.code {
            op::BODY if passes => replaced = Some(operation.value.to_vec()),
            op::STATE => {
                state = Some(u64::from_le_bytes(
                    operation.array().unwrap_or_else(|why| panic!("{why}")),
                ))
            }
            code => panic!("the host would refuse operation {code} here"),
        }
        rest = tail;
    }
    (passes, replaced, state)
}

/// Phases with a head, to which a reply can be given. In those of bodies the mode decides, which is the caller's to know.
fn is_http(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Request | Phase::Response | Phase::RequestBody | Phase::ResponseBody
    )
}

struct Operation<'a> {
    code: u8,
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Operation<'a> {
    /// The first operation of `block` and what follows it.
    fn split(block: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, String> {
        if block.is_empty() {
            return Ok(None);
        }
        let short = || "an operation runs over the block".to_owned();
        let (header, rest) = block.split_first_chunk::<8>().ok_or_else(short)?;
        let [code, zero, n0, n1, v0, v1, v2, v3] = *header;
        if zero != 0 {
            return Err("the second byte of an operation is 0".into());
        }
        let name_len = usize::from(u16::from_le_bytes([n0, n1]));
        let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let (name, rest) = rest.split_at_checked(name_len).ok_or_else(short)?;
        let (value, rest) = rest.split_at_checked(value_len).ok_or_else(short)?;
        Ok(Some((Self { code, name, value }, rest)))
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.value.to_vec()).map_err(|_| "text that is not UTF-8".to_owned())
    }

    fn u32(&self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], String> {
        self.value
            .try_into()
            .map_err(|_| format!("operation {} has a value of {N} bytes", self.code))
    }
}
