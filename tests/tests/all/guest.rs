//! Hand-written guests: core modules in the text format around a fixed plan, one behaviour each.

/// Where data of the guest begins; the heap follows a page later.
const DATA: u32 = 1024;
const HEAP: u32 = 65536;
/// The flags of every fact.
const ALL_FACTS: u32 = (1 << 20) - 1;
/// The end of a plan that wants all facts, no bodies, no effects and no ticks.
pub const NOTHING_MORE: [u32; 9] = [ALL_FACTS, 0, 0, 0, 0, 0, 0, 0, 0];

/// The phases of the packed world, in the order of the plan's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub enum Phase {
    Request,
    Response,
    Log,
    Connect,
    ClientHello,
    FirstBytes,
    RequestBody,
    ResponseBody,
    RequestTrailers,
    ResponseTrailers,
    ClientData,
    ServerData,
    Tick,
}

/// One guest. Whatever is not said is absent.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    phases: u16,
    data: Vec<u8>,
    pools: Vec<[u32; 5]>,
    first_bytes: u32,
    tick_ms: u32,
    imports: Vec<String>,
    configure: Option<String>,
    items: Vec<String>,
}

impl Guest {
    /// `phase` answers `block`, a packed verdict.
    pub fn answers(self, phase: Phase, block: &[u8]) -> Self {
        let mut guest = self;
        let pair = guest.pair(block);
        guest.runs(phase, &format!("i32.const {pair}"))
    }

    /// `phase` runs `body`, which leaves the address of (pointer, length) on the stack; the head is at `$head`,
    /// `$length`.
    pub fn runs(mut self, phase: Phase, body: &str) -> Self {
        self.phases |= 1 << (phase as u16);
        let name = match phase {
            Phase::Request => "http-request@0.1.0#on-request",
            Phase::Response => "http-response@0.1.0#on-response",
            Phase::Log => "http-log@0.1.0#on-log",
            Phase::Connect => "stream-connect@0.1.0#on-connect",
            Phase::ClientHello => "stream-client-hello@0.1.0#on-client-hello",
            Phase::FirstBytes => "stream-first-bytes@0.1.0#on-first-bytes",
            Phase::RequestBody => "http-request-body@0.1.0#on-request-body",
            Phase::ResponseBody => "http-response-body@0.1.0#on-response-body",
            Phase::RequestTrailers => "http-request-trailers@0.1.0#on-request-trailers",
            Phase::ResponseTrailers => "http-response-trailers@0.1.0#on-response-trailers",
            Phase::ClientData => "stream-client-data@0.1.0#on-client-data",
            Phase::ServerData => "stream-server-data@0.1.0#on-server-data",
            Phase::Tick => "tick@0.1.0#on-tick",
        };
        let result = match phase {
            Phase::Log => "",
            _ => "(result i32)",
        };
        self.items.push(format!(
            "(func (export \"sluicegate:filter/{name}\") (param $head i32) (param $length i32) {result} (local $n i32)
               (global.set $heap (i32.const {HEAP})) {body})"
        ));
        self
    }

    /// Sets the phase's flag in the plan without exporting a packed function for it.
    pub fn wants(mut self, phase: Phase) -> Self {
        self.phases |= 1 << (phase as u16);
        self
    }

    /// A pool for routes, by index in the order of these calls.
    pub fn pool(mut self, name: &str) -> Self {
        let at = self.put(name.as_bytes());
        self.pools.push([at, name.len() as u32, at, 0, 0]);
        self
    }

    pub fn first_bytes(mut self, count: u32) -> Self {
        self.first_bytes = count;
        self
    }

    /// The interval of ticks.
    pub fn every_ms(mut self, ms: u32) -> Self {
        self.tick_ms = ms;
        self
    }

    /// An import, in the text format.
    pub fn import(mut self, import: &str) -> Self {
        self.imports.push(import.to_owned());
        self
    }

    /// `configure` runs `body`, which leaves the address of its result on the stack, instead of answering the plan, whose
    /// address stands for `$plan`.
    pub fn configures(mut self, body: &str) -> Self {
        self.configure = Some(body.to_owned());
        self
    }

    /// The capability `log`, as the function `$log`.
    pub fn logs(self) -> Self {
        self.import(
            "(import \"sluicegate:filter/log@0.1.0\" \"log\" (func $log (param i32 i32 i32)))",
        )
    }

    /// Something more of a module, in the text format.
    pub fn item(mut self, item: &str) -> Self {
        self.items.push(item.to_owned());
        self
    }

    /// Puts `block` into the guest's memory; the address of its (pointer, length).
    pub fn pair(&mut self, block: &[u8]) -> u32 {
        let at = self.put(block);
        self.words(&[at, block.len() as u32])
    }

    pub fn put(&mut self, bytes: &[u8]) -> u32 {
        while !self.data.len().is_multiple_of(4) {
            self.data.push(0);
        }
        let at = DATA + self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        assert!(
            at as usize + bytes.len() < HEAP as usize,
            "the data fits below the heap"
        );
        at
    }

    pub fn words(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(&bytes)
    }

    /// The module as a binary.
    pub fn build(&self) -> Vec<u8> {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
    }

    /// The module in the text format.
    pub fn text(&self) -> String {
        let mut guest = self.clone();
        let pools: Vec<u32> = guest.pools.concat();
        let pools_at = guest.words(&pools);
        // result<plan, …>: the case, then the record with its members aligned; all fields are wanted.
        let plan = guest.words(&[
            0,
            self.phases.into(),
            0,
            0,
            2,
            0,
            0,
            2,
            0,
            0,
            pools_at,
            self.pools.len() as u32,
            self.first_bytes,
            ALL_FACTS,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            self.tick_ms,
        ]);
        let configure = match &self.configure {
            Some(own) => own.replace("$plan", &plan.to_string()),
            None => format!("i32.const {plan}"),
        };
        let data: String = guest
            .data
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(module $guest
              {imports}
              (memory (export "memory") 4)
              (global $heap (mut i32) (i32.const {HEAP}))
              (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.set $heap (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
              (func (export "sluicegate:filter/configuration@0.1.0#configure")
                (param $head i32) (param $length i32) (result i32)
                (global.set $heap (i32.const {HEAP})) {configure})
              {items}
              (data (i32.const {DATA}) "{data}"))"#,
            imports = self.imports.join("\n"),
            items = self.items.join("\n"),
        )
    }
}

/// One operation of a packed verdict.
pub fn op(code: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![code, 0];
    out.extend((name.len() as u16).to_le_bytes());
    out.extend((value.len() as u32).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
    out
}

/// A verdict with its operations.
pub fn verdict(kind: u8, ops: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(ops.concat());
    out
}

pub const NEXT: u8 = 0;
pub const REPLY: u8 = 1;
pub const DROP: u8 = 2;
pub const RESET: u8 = 3;
pub const SET: u8 = 1;
pub const POOL: u8 = 32;
pub const STATUS: u8 = 48;
pub const BODY: u8 = 49;
pub const SUSPEND: u8 = 4;
pub const SLEEP: u8 = 80;
