//! Reads what a guest answers (PACKED.md, "Verdict"). A verdict is checked as a whole before anything of it is used.

use crate::head::target::{is_authority, is_origin_form};

use super::bad_verdict::{BadVerdict, EFFECTS_MAX, Kind, OPERATIONS_MAX};
use super::bindings::{BodyMode, Effects};
use super::contract::Phase;
use super::effect::Effect;
use super::raw_op::{RawOp, field};

const STICKY_BYTES_MAX: usize = 1024;
const ENDPOINT_BYTES_MAX: usize = 64;
/// One checked operation. Names may be in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    Set(&'a [u8], &'a [u8]),
    Append(&'a [u8], &'a [u8]),
    Add(&'a [u8], &'a [u8]),
    Remove(&'a [u8]),
    /// Path with query.
    Target(&'a [u8]),
    Authority(&'a [u8]),
    /// Index into the plan's pools; in range.
    Pool(usize),
    StickyKey(&'a [u8]),
    Endpoint(&'a str),
    TryTimeoutMs(u32),
    TotalTimeoutMs(u32),
    Retries(u32),
    Status(u16),
    Body(&'a [u8]),
    /// The filter does not want the body of the request, or of the response.
    SkipRequestBody,
    SkipResponseBody,
    State(u64),
    /// Of a suspended call.
    Token(u64),
    Effect(Effect<'a>),
}

/// What a verdict may say: the phase it is for, and what the plan announced.
#[derive(Debug, Clone)]
pub struct Rules {
    pub phase: Phase,
    /// For each pool of the plan, whether the filter calls it itself.
    pub called: Box<[bool]>,
    pub effects: Effects,
    /// How the body comes, in the phases of bodies.
    pub body: BodyMode,
}

impl Rules {
    /// For a plan with so many pools and no effects or bodies.
    pub fn new(phase: Phase, pools: usize) -> Self {
        Self {
            phase,
            called: vec![false; pools].into(),
            effects: Effects::empty(),
            body: BodyMode::Skip,
        }
    }

    /// The phase has a head before it that was not sent: it can be edited, or replaced by a reply.
    fn has_head(&self) -> bool {
        match self.phase {
            Phase::Request | Phase::Response => true,
            Phase::RequestBody | Phase::ResponseBody => self.body.holds_head(),
            _ => false,
        }
    }

    fn allows_kind(&self, kind: Kind) -> bool {
        match self.phase {
            Phase::Log => kind == Kind::Next,
            Phase::Tick => matches!(kind, Kind::Next | Kind::Suspend),
            Phase::RequestTrailers | Phase::ResponseTrailers => {
                matches!(kind, Kind::Next | Kind::Drop | Kind::Reset)
            }
            _ => match kind {
                Kind::Next | Kind::Drop | Kind::Reset => true,
                Kind::Reply => self.has_head(),
                Kind::Suspend => matches!(
                    self.phase,
                    Phase::Request
                        | Phase::Response
                        | Phase::Connect
                        | Phase::ClientHello
                        | Phase::FirstBytes
                        | Phase::RequestBody
                        | Phase::ResponseBody
                ),
            },
        }
    }

    fn allows(&self, op: &Op<'_>, kind: Kind) -> bool {
        let phase = self.phase;
        let routes = matches!(
            phase,
            Phase::Request | Phase::Connect | Phase::ClientHello | Phase::FirstBytes
        );
        // The pool is chosen once the body has been seen, when the head waited for it.
        let before_pool = phase == Phase::Request || phase == Phase::RequestBody && self.has_head();
        let edits =
            self.has_head() || matches!(phase, Phase::RequestTrailers | Phase::ResponseTrailers);
        match op {
            Op::Effect(_) | Op::Token(_) => kind == Kind::Suspend,
            Op::State(_) => phase != Phase::Tick,
            _ if kind == Kind::Suspend => false,
            Op::Set(..) | Op::Append(..) | Op::Add(..) | Op::Remove(_) => edits,
            Op::Target(_)
            | Op::Authority(_)
            | Op::TryTimeoutMs(_)
            | Op::TotalTimeoutMs(_)
            | Op::Retries(_) => before_pool,
            Op::Pool(_) | Op::StickyKey(_) | Op::Endpoint(_) => routes || before_pool,
            Op::Status(_) => {
                self.has_head()
                    && (kind == Kind::Reply
                        || matches!(phase, Phase::Response | Phase::ResponseBody))
            }
            Op::SkipRequestBody => phase == Phase::Request && kind == Kind::Next,
            Op::SkipResponseBody => {
                matches!(phase, Phase::Request | Phase::Response) && kind == Kind::Next
            }
            Op::Body(_) => match phase {
                Phase::ClientData | Phase::ServerData => kind == Kind::Next,
                Phase::RequestBody | Phase::ResponseBody => {
                    kind == Kind::Reply || kind == Kind::Next && self.body != BodyMode::Watch
                }
                _ => kind == Kind::Reply,
            },
        }
    }

    fn announces(&self, effect: &Effect<'_>) -> Result<(), BadVerdict> {
        let (needs, name) = match effect {
            Effect::Sleep { .. } => return Ok(()),
            Effect::Call(_) => (Effects::HTTP_CALL, "http-call"),
            _ => (Effects::KEY_VALUE, "key-value"),
        };
        if self.effects.contains(needs) {
            Ok(())
        } else {
            Err(BadVerdict::NotAnnounced(name))
        }
    }
}

/// A verdict that was checked, with the block it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub kind: Kind,
    /// Empty, or the code and the operations as the guest wrote them.
    block: Vec<u8>,
    operations: usize,
}

impl Verdict {
    /// Go on, unchanged.
    pub const NEXT: Verdict = Verdict {
        kind: Kind::Next,
        block: Vec::new(),
        operations: 0,
    };

    /// Checks an answer.
    pub fn read(block: Vec<u8>, rules: &Rules) -> Result<Self, BadVerdict> {
        let Some((&code, mut rest)) = block.split_first() else {
            return Ok(Verdict {
                block,
                ..Verdict::NEXT
            });
        };
        let kind = match code {
            0 => Kind::Next,
            1 => Kind::Reply,
            2 => Kind::Drop,
            3 => Kind::Reset,
            4 => Kind::Suspend,
            other => return Err(BadVerdict::UnknownVerdict(other)),
        };
        if !rules.allows_kind(kind) {
            return Err(BadVerdict::VerdictNotAllowed(kind));
        }
        let mut operations = 0;
        let mut effects = 0;
        while !rest.is_empty() {
            operations += 1;
            if operations > OPERATIONS_MAX {
                return Err(BadVerdict::TooMany);
            }
            let (raw, after) = RawOp::split(rest)?;
            let op = raw.checked(&rules.called)?;
            if !rules.allows(&op, kind) {
                return Err(BadVerdict::OperationNotAllowed(raw.code));
            }
            if let Op::Effect(effect) = &op {
                rules.announces(effect)?;
                effects += 1;
            }
            rest = after;
        }
        if kind == Kind::Suspend && effects == 0 {
            return Err(BadVerdict::NoEffect);
        }
        if effects > EFFECTS_MAX {
            return Err(BadVerdict::TooManyEffects);
        }
        Ok(Verdict {
            kind,
            block,
            operations,
        })
    }

    /// The block, to be written over.
    pub fn into_block(self) -> Vec<u8> {
        self.block
    }

    pub fn is_plain_next(&self) -> bool {
        self.kind == Kind::Next && self.operations == 0
    }

    /// How many operations it has.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Bytes of the block: no edit adds more to a head than it takes here.
    pub fn size(&self) -> usize {
        self.block.len()
    }

    /// The operations, in order.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        let mut rest = self.block.get(1..).unwrap_or_default();
        std::iter::from_fn(move || {
            // `read` went over the same bytes, so this only fails at their end.
            let (raw, after) = RawOp::split(rest).ok()?;
            rest = after;
            raw.decode().ok()
        })
    }
}

impl<'a> RawOp<'a> {
    /// What it says, if that may be said.
    fn checked(&self, called: &[bool]) -> Result<Op<'a>, BadVerdict> {
        let code = self.code;
        let pools = called.len();
        let fits = match code {
            80 | 81 | 84..=88 => return Effect::read(self, Some(called)).map(Op::Effect),
            1..=4 => {
                field(self.name, self.value)?;
                true
            }
            _ if !self.name.is_empty() => false,
            16 => is_origin_form(self.value),
            17 => is_authority(self.value),
            33 => (1..=STICKY_BYTES_MAX).contains(&self.value.len()),
            34 => (1..=ENDPOINT_BYTES_MAX).contains(&self.value.len()),
            _ => true,
        };
        if !fits {
            return Err(BadVerdict::Argument(code));
        }
        match self.decode()? {
            Op::Pool(index) if index >= pools => Err(BadVerdict::Pool { index, pools }),
            Op::Status(status) if !(200..=999).contains(&status) => Err(BadVerdict::Status(status)),
            op => Ok(op),
        }
    }

    #[inline]
    fn decode(&self) -> Result<Op<'a>, BadVerdict> {
        let Self { code, name, value } = *self;
        let argument = BadVerdict::Argument(code);
        let number = || self.number();
        Ok(match code {
            1 => Op::Set(name, value),
            2 => Op::Append(name, value),
            3 => Op::Add(name, value),
            4 => Op::Remove(name),
            16 => Op::Target(value),
            17 => Op::Authority(value),
            32 => Op::Pool(number()? as usize),
            33 => Op::StickyKey(value),
            34 => Op::Endpoint(std::str::from_utf8(value).map_err(|_| argument)?),
            35 => Op::TryTimeoutMs(number()?),
            36 => Op::TotalTimeoutMs(number()?),
            37 => Op::Retries(number()?),
            48 => Op::Status(u16::from_le_bytes(value.try_into().map_err(|_| argument)?)),
            49 => Op::Body(value),
            50 => Op::SkipRequestBody,
            51 => Op::SkipResponseBody,
            64 => Op::State(u64::from_le_bytes(value.try_into().map_err(|_| argument)?)),
            65 => Op::Token(u64::from_le_bytes(value.try_into().map_err(|_| argument)?)),
            80 | 81 | 84..=88 => Op::Effect(Effect::read(self, None)?),
            other => return Err(BadVerdict::UnknownOperation(other)),
        })
    }
}

/// Writes operations; for the readable form, whose answers take the same way as packed ones, and for tests.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: Kind) -> Self {
        Self(vec![match kind {
            Kind::Next => 0,
            Kind::Reply => 1,
            Kind::Drop => 2,
            Kind::Reset => 3,
            Kind::Suspend => 4,
        }])
    }

    /// A name over 64 KiB is not a field name: it is cut to one that is still refused for its length.
    pub(crate) fn op(&mut self, code: u8, name: &[u8], value: &[u8]) -> &mut Self {
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        self.0.extend_from_slice(&[code, 0]);
        self.0.extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.0
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn op(code: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        Writer::new(Kind::Next).op(code, name, value).finish()
    }

    #[test]
    fn nothing_is_next() {
        let verdict = Verdict::read(vec![], &Rules::new(Phase::Request, 0)).unwrap();
        assert!(verdict.is_plain_next());
        assert!(
            Verdict::read(vec![0], &Rules::new(Phase::Log, 0))
                .unwrap()
                .is_plain_next()
        );
    }

    #[test]
    fn operations_come_in_order() {
        let mut block = Writer::new(Kind::Reply);
        block
            .op(48, b"", &451u16.to_le_bytes())
            .op(1, b"X-Why", b"law")
            .op(49, b"", b"no")
            .op(64, b"", &9u64.to_le_bytes());
        let block = block.finish();
        let verdict = Verdict::read(block, &Rules::new(Phase::Request, 0)).unwrap();
        assert_eq!(verdict.kind, Kind::Reply);
        assert_eq!(
            verdict.ops().collect::<Vec<_>>(),
            [
                Op::Status(451),
                Op::Set(b"X-Why", b"law"),
                Op::Body(b"no"),
                Op::State(9)
            ]
        );
    }

    #[test]
    fn every_fault_of_the_document_is_one() {
        use super::BadVerdict as Bad;
        let many = |count: usize| {
            let mut block = Writer::new(Kind::Next);
            (0..count).for_each(|_| {
                block.op(4, b"a", b"");
            });
            block.finish()
        };
        let request = Phase::Request;
        let cases: Vec<(Vec<u8>, Phase, Bad)> = vec![
            (vec![4], request, Bad::NoEffect),
            (vec![4], Phase::Log, Bad::VerdictNotAllowed(Kind::Suspend)),
            (vec![5], request, Bad::UnknownVerdict(5)),
            (vec![9], request, Bad::UnknownVerdict(9)),
            (vec![1], Phase::Connect, Bad::VerdictNotAllowed(Kind::Reply)),
            (vec![2], Phase::Log, Bad::VerdictNotAllowed(Kind::Drop)),
            (op(99, b"", b""), request, Bad::UnknownOperation(99)),
            (
                op(16, b"", b"/x"),
                Phase::Response,
                Bad::OperationNotAllowed(16),
            ),
            (
                op(48, b"", &200u16.to_le_bytes()),
                request,
                Bad::OperationNotAllowed(48),
            ),
            (op(49, b"", b"x"), request, Bad::OperationNotAllowed(49)),
            (
                op(1, b"a", b"b"),
                Phase::Connect,
                Bad::OperationNotAllowed(1),
            ),
            (vec![0, 1], request, Bad::Overrun),
            (vec![0, 49, 1, 0, 0, 0, 0, 0, 0], request, Bad::Argument(49)),
            (many(OPERATIONS_MAX + 1), request, Bad::TooMany),
            (op(16, b"", b"/\xff"), request, Bad::Argument(16)),
            (
                vec![0, 49, 0, 0, 0, 255, 255, 255, 255],
                request,
                Bad::Overrun,
            ),
            (vec![0, 1, 0, 255, 255, 0, 0, 0, 0], request, Bad::Overrun),
            (op(1, b"a b", b""), request, Bad::Name("a b".into())),
            (op(1, b"", b""), request, Bad::Name("".into())),
            (op(4, b"Te", b""), request, Bad::HostOwned("Te".into())),
            (
                op(2, b"Transfer-Encoding", b"chunked"),
                request,
                Bad::HostOwned("Transfer-Encoding".into()),
            ),
            (op(1, b"a", b"x\r\ny: z"), request, Bad::Value("a".into())),
            (op(1, b"a", b"\0"), request, Bad::Value("a".into())),
            (op(16, b"", b"x"), request, Bad::Argument(16)),
            (op(16, b"", b"/a b"), request, Bad::Argument(16)),
            (op(16, b"", b"/a#b"), request, Bad::Argument(16)),
            (op(16, b"", b"/a<b"), request, Bad::Argument(16)),
            (op(16, b"n", b"/"), request, Bad::Argument(16)),
            (op(17, b"", b"a/b"), request, Bad::Argument(17)),
            (
                op(32, b"", &2u32.to_le_bytes()),
                request,
                Bad::Pool { index: 2, pools: 2 },
            ),
            (op(32, b"", &[0]), request, Bad::Argument(32)),
            (op(33, b"", b""), request, Bad::Argument(33)),
            (op(33, b"", &[0; 1025]), request, Bad::Argument(33)),
            (op(34, b"", b"\xff"), request, Bad::Argument(34)),
            (op(35, b"", b""), request, Bad::Argument(35)),
            (
                op(48, b"", &100u16.to_le_bytes()),
                Phase::Response,
                Bad::Status(100),
            ),
            (
                op(48, b"", &1000u16.to_le_bytes()),
                Phase::Response,
                Bad::Status(1000),
            ),
            (op(64, b"", &[0; 7]), request, Bad::Argument(64)),
        ];
        for (block, phase, expected) in cases {
            let read = Verdict::read(block.clone(), &Rules::new(phase, 2));
            assert_eq!(read, Err(expected), "{block:?}");
        }
        assert!(Verdict::read(many(OPERATIONS_MAX), &Rules::new(request, 0)).is_ok());
    }

    /// A client may send such a name, and a filter that removes what it was shown must not fail by it.
    #[test]
    fn long_names_are_names() {
        let name = vec![b'x'; 10_000];
        let block = op(4, &name, b"");
        let verdict = Verdict::read(block, &Rules::new(Phase::Request, 0)).unwrap();
        assert_eq!(verdict.ops().collect::<Vec<_>>(), [Op::Remove(&name)]);
    }

    fn phases() -> impl Strategy<Value = Phase> {
        proptest::sample::select(Phase::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(block in proptest::collection::vec(any::<u8>(), 0..256), phase in phases()) {
            if let Ok(verdict) = Verdict::read(block, &Rules::new(phase, 3)) {
                verdict.ops().count();
            }
        }

        /// Bytes that look like operations reach further into the reader than noise does.
        #[test]
        fn arbitrary_operations_never_panic(
            ops in proptest::collection::vec(
                (0u8..70, proptest::collection::vec(any::<u8>(), 0..6), proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
            cut in 0usize..4,
            phase in phases(),
        ) {
            let mut writer = Writer::new(Kind::Next);
            for (code, name, value) in &ops {
                writer.op(*code, name, value);
            }
            let block = writer.finish();
            let block = &block[..block.len().saturating_sub(cut)];
            if let Ok(verdict) = Verdict::read(block.to_vec(), &Rules::new(phase, 3)) {
                prop_assert!(verdict.ops().count() <= ops.len());
            }
        }

        /// What was accepted comes back whole.
        #[test]
        fn accepted_fields_come_back(name in "[a-z][a-z-]{0,12}x", value in "[ -~]{0,20}") {
            let block = op(2, name.as_bytes(), value.as_bytes());
            let verdict = Verdict::read(block, &Rules::new(Phase::Response, 0)).unwrap();
            prop_assert_eq!(verdict.ops().collect::<Vec<_>>(), vec![Op::Append(name.as_bytes(), value.as_bytes())]);
        }
    }
}
