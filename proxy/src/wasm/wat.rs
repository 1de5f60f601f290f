//! Hand-written guests for tests: core modules in the text format, without any SDK, around a fixed plan.

use super::contract::Phase;

/// Where data of the guest begins; the heap follows a page later.
const DATA: u32 = 1024;
const HEAP: u32 = 65536;
/// The flags of every fact.
const ALL_FACTS: u32 = (1 << 20) - 1;

/// Builds one guest. Whatever is not said is absent.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    phases: u16,
    data: Vec<u8>,
    tests: Vec<[u32; 5]>,
    pools: Vec<[u32; 5]>,
    request_fields: u32,
    response_fields: u32,
    first_bytes: u32,
    request_body: [u32; 3],
    configure: Option<String>,
    items: Vec<String>,
    imports: Vec<String>,
    pages: u32,
    memory_max: String,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self {
            phases: 0,
            data: Vec::new(),
            tests: Vec::new(),
            pools: Vec::new(),
            request_fields: 2,
            response_fields: 2,
            first_bytes: 0,
            request_body: [0; 3],
            configure: None,
            items: Vec::new(),
            imports: Vec::new(),
            pages: 4,
            memory_max: String::new(),
        }
    }

    /// A guest whose `phase` answers `block`.
    pub(crate) fn answering(phase: Phase, block: &[u8]) -> Self {
        Self::new().and_answers(phase, block)
    }

    /// A guest whose `phase` runs `body`, which leaves the address of (pointer, length) on the stack; the head is at
    /// `$head`, `$length`.
    pub(crate) fn running(phase: Phase, body: &str) -> Self {
        Self::new().and_runs(phase, body)
    }

    pub(crate) fn and_answers(mut self, phase: Phase, block: &[u8]) -> Self {
        let (pointer, length) = self.put(block);
        let pair = self.words(&[pointer, length]);
        self.and_runs(phase, &format!("i32.const {pair}"))
    }

    pub(crate) fn and_runs(mut self, phase: Phase, body: &str) -> Self {
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
        let result = if phase == Phase::Log {
            ""
        } else {
            "(result i32)"
        };
        self.items.push(format!(
            "(func (export \"sluicegate:filter/{name}\") (param $head i32) (param $length i32) {result} (local $n i32)
               (global.set $heap (i32.const {HEAP})) {body})"
        ));
        self
    }

    /// Only paths below `prefix` match.
    pub(crate) fn matching_prefix(mut self, prefix: &str) -> Self {
        let (pointer, length) = self.put(prefix.as_bytes());
        self.tests.push([2, pointer, length, 0, 0]);
        self
    }

    /// A node without values, by its case number: for plans that are no predicate.
    pub(crate) fn matching_raw(mut self, case: u32, count: u32) -> Self {
        self.tests.push([case, count, 0, 0, 0]);
        self
    }

    pub(crate) fn pool(mut self, name: &str, path: &str) -> Self {
        let (name, name_len) = self.put(name.as_bytes());
        let (path, path_len) = self.put(path.as_bytes());
        self.pools.push([name, name_len, path, path_len, 0]);
        self
    }

    pub(crate) fn first_bytes(mut self, count: u32) -> Self {
        self.first_bytes = count;
        self
    }

    /// How the request's body comes: the number of the mode, and its maximum.
    pub(crate) fn request_body(mut self, mode: u32, max: u32) -> Self {
        self.request_body = [mode, max, 0];
        self
    }

    pub(crate) fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// `configure` runs this instead of answering the plan; the settings are at `$head`, `$length`.
    pub(crate) fn configure(mut self, body: &str) -> Self {
        self.configure = Some(body.to_owned());
        self
    }

    /// `configure` refuses with one diagnostic.
    pub(crate) fn refusing(mut self, path: &str, message: &str, help: &str) -> Self {
        let (path, path_len) = self.put(path.as_bytes());
        let (message, message_len) = self.put(message.as_bytes());
        let (help, help_len) = self.put(help.as_bytes());
        let diagnostic = self.words(&[path, path_len, message, message_len, 1, help, help_len]);
        let answer = self.words(&[1, diagnostic, 1]);
        self.configure(&format!("i32.const {answer}"))
    }

    /// Something more of a module, in the text format.
    pub(crate) fn item(mut self, item: &str) -> Self {
        self.items.push(item.to_owned());
        self
    }

    pub(crate) fn import(mut self, import: &str) -> Self {
        self.imports.push(import.to_owned());
        self
    }

    /// Bytes in the guest's memory: their address and length.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> (u32, u32) {
        while !self.data.len().is_multiple_of(4) {
            self.data.push(0);
        }
        let at = DATA + self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        assert!(at as usize + bytes.len() < HEAP as usize);
        (at, bytes.len() as u32)
    }

    fn words(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(&bytes).0
    }

    pub(crate) fn text(&self) -> String {
        let mut guest = self.clone();
        let tests: Vec<u32> = guest.tests.concat();
        let tests_at = guest.words(&tests);
        let pools: Vec<u32> = guest.pools.concat();
        let pools_at = guest.words(&pools);
        // result<plan, …>: the case, then the record with its members aligned.
        let plan = guest.words(&[
            0,
            self.phases.into(),
            tests_at,
            self.tests.len() as u32,
            self.request_fields,
            0,
            0,
            self.response_fields,
            0,
            0,
            pools_at,
            self.pools.len() as u32,
            self.first_bytes,
            ALL_FACTS,
            self.request_body[0],
            self.request_body[1],
            self.request_body[2],
            0,
            0,
            0,
            0,
            0,
        ]);
        let configure = self
            .configure
            .clone()
            .unwrap_or_else(|| format!("i32.const {plan}"));
        let data: String = guest
            .data
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(module $guest
              {imports}
              (memory (export "memory") {pages} {max})
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
            pages = self.pages,
            max = self.memory_max,
            items = self.items.join("\n"),
        )
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("a test's guest is valid")
    }
}
