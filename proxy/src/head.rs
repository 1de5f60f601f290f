//! The head of an HTTP message as every room sees it: fields in one arena, names in lower case, order kept.
//!
//! The arena is the buffer the head was parsed from, so that parsing copies nothing, reading a field is a slice, and
//! forwarding the head is one pass. Edits push bytes at the arena's end and mark what they replace as gone.

pub mod target;

/// One field line: ranges of the arena.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    live: bool,
}

/// The field lines of one message. Bounded by whoever fills it (see `limits` in the configuration).
#[derive(Debug, Default)]
pub struct Fields {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self {
            arena: self.arena.clone(),
            entries: self.entries.clone(),
        }
    }

    /// Keeps the allocations.
    fn clone_from(&mut self, other: &Self) {
        self.arena.clone_from(&other.arena);
        self.entries.clone_from(&other.entries);
    }
}

impl Fields {
    /// Takes the buffer a head was parsed from; `push_range` then names the fields inside it.
    pub fn from_arena(arena: Vec<u8>) -> Self {
        Self {
            arena,
            entries: Vec::with_capacity(16),
        }
    }

    /// Hands the buffers back for reuse, emptied.
    pub fn into_arena(mut self) -> Vec<u8> {
        self.arena.clear();
        self.arena
    }

    /// Empties it and keeps the allocations.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// The arena, for callers that keep further ranges (method, target) in it.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    pub fn arena_mut(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Adds a field that lies in the arena already. The name there must be in lower case.
    pub fn push_range(&mut self, name: std::ops::Range<usize>, value: std::ops::Range<usize>) {
        self.entries.push(Entry {
            name: name.start as u32,
            name_len: (name.end - name.start) as u16,
            value: value.start as u32,
            value_len: (value.end - value.start) as u32,
            live: true,
        });
    }

    fn name_of(&self, e: &Entry) -> &[u8] {
        &self.arena[e.name as usize..e.name as usize + e.name_len as usize]
    }

    fn value_of(&self, e: &Entry) -> &[u8] {
        &self.arena[e.value as usize..e.value as usize + e.value_len as usize]
    }

    /// Every line, in order: (lower-case name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries
            .iter()
            .filter(|e| e.live)
            .map(|e| (self.name_of(e), self.value_of(e)))
    }

    /// What it takes: lines that are or were there, and bytes. It only grows.
    pub fn extent(&self) -> (usize, usize) {
        (self.entries.len(), self.arena.len())
    }

    pub fn len(&self) -> usize {
        self.entries.iter().filter(|e| e.live).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first value of `name` (lower case).
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.entries
            .iter()
            .find(|e| e.live && self.name_of(e) == name)
            .map(|e| self.value_of(e))
    }

    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.entries
            .iter()
            .filter(move |e| e.live && self.name_of(e) == name)
            .map(|e| self.value_of(e))
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// One more line at the end. `name` must be a lower-case token and `value` free of CR, LF, NUL: callers check.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let at = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(value);
        self.push_range(
            at..at + name.len(),
            at + name.len()..at + name.len() + value.len(),
        );
    }

    /// Replaces every line of `name` by one, at the place of the first (or at the end).
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let at = self.arena.len() as u32;
        let mut placed = false;
        for i in 0..self.entries.len() {
            let e = self.entries[i];
            if !e.live || self.name_of(&e) != name {
                continue;
            }
            if placed {
                self.entries[i].live = false;
            } else {
                placed = true;
                self.entries[i].value = at;
                self.entries[i].value_len = value.len() as u32;
            }
        }
        if placed {
            self.arena.extend_from_slice(value);
        } else {
            self.append(name, value);
        }
    }

    /// Removes every line of `name`; true when there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.retain_lines(|n, _| n != name)
    }

    /// Keeps the lines `keep` says yes to; true when one went.
    pub fn retain_lines(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
        let mut removed = false;
        for i in 0..self.entries.len() {
            let e = self.entries[i];
            if e.live && !keep(self.name_of(&e), self.value_of(&e)) {
                self.entries[i].live = false;
                removed = true;
            }
        }
        removed
    }
}

/// Version of HTTP a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// A range of a head's arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.at as usize..(self.at + self.len) as usize]
    }

    fn from_range(range: std::ops::Range<usize>) -> Self {
        Self {
            at: range.start as u32,
            len: (range.end - range.start) as u32,
        }
    }

    fn push(arena: &mut Vec<u8>, bytes: &[u8]) -> Self {
        let at = arena.len();
        arena.extend_from_slice(bytes);
        Self::from_range(at..arena.len())
    }
}

/// A request head: checked, in origin form, without its `Host` line (that is the authority). Method, authority and
/// target lie in the arena of the fields.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub version: Version,
    pub fields: Fields,
    method: Span,
    /// As it came over the connection.
    received: Span,
    /// What the client asked for, whatever filters made of it.
    asked: Span,
    /// The same as `asked` until a filter sets it.
    authority: Span,
    target: Span,
}

impl RequestHead {
    /// Copies method, authority and target into the arena of `fields`. Callers have checked them.
    pub fn new(
        version: Version,
        method: &[u8],
        authority: &[u8],
        target: &[u8],
        mut fields: Fields,
    ) -> Self {
        let arena = fields.arena_mut();
        let authority = Span::push(arena, authority);
        Self {
            version,
            method: Span::push(arena, method),
            received: authority,
            asked: authority,
            authority,
            target: Span::push(arena, target),
            fields,
        }
    }

    /// For a parser whose method, authority and target lie in the arena already.
    pub fn from_ranges(
        version: Version,
        method: std::ops::Range<usize>,
        authority: std::ops::Range<usize>,
        target: std::ops::Range<usize>,
        fields: Fields,
    ) -> Self {
        let authority = Span::from_range(authority);
        Self {
            version,
            method: Span::from_range(method),
            received: authority,
            asked: authority,
            authority,
            target: Span::from_range(target),
            fields,
        }
    }

    /// A token, as sent; methods are case-sensitive.
    pub fn method(&self) -> &[u8] {
        self.method.of(self.fields.arena())
    }

    /// Host and port that the client asked for (absolute form and `:authority` win over `Host`, and what a trusted proxy
    /// says over all of them), or as a filter has set them.
    pub fn authority(&self) -> &[u8] {
        self.authority.of(self.fields.arena())
    }

    /// Host and port that the client asked for, whatever filters made of them.
    pub fn asked_authority(&self) -> &[u8] {
        self.asked.of(self.fields.arena())
    }

    /// Host and port as they came over the connection, from the client or from a proxy before this one.
    pub fn received_authority(&self) -> &[u8] {
        self.received.of(self.fields.arena())
    }

    /// What the next hop is told in `Host`: what came in it, or what a filter has set.
    pub fn host(&self) -> &[u8] {
        if self.authority == self.asked {
            self.received_authority()
        } else {
            self.authority()
        }
    }

    /// Says what a filter wants the request to be for.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = Span::push(self.fields.arena_mut(), authority);
    }

    /// Says what the client asked a proxy before this one for, whose own request may name another `Host`.
    pub fn set_asked_authority(&mut self, authority: &[u8]) {
        if authority != self.asked_authority() {
            self.asked = Span::push(self.fields.arena_mut(), authority);
        }
        self.authority = self.asked;
    }

    /// Path and query in origin form, or `*`.
    pub fn target(&self) -> &[u8] {
        self.target.of(self.fields.arena())
    }

    pub fn set_target(&mut self, target: &[u8]) {
        self.target = Span::push(self.fields.arena_mut(), target);
    }

    pub fn path(&self) -> &[u8] {
        let target = self.target();
        match memchr::memchr(b'?', target) {
            Some(at) => &target[..at],
            None => target,
        }
    }

    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }
}

/// A response head, without the framing fields.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub version: Version,
    pub status: u16,
    pub fields: Fields,
}

/// Bounds of a head, from the listener's limits.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// All field lines together, with the start line.
    pub bytes: usize,
    pub fields: usize,
    pub target: usize,
}

/// True for a token (RFC 9110 §5.6.2): what methods and field names are made of.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

#[inline]
pub fn is_tchar(b: u8) -> bool {
    TCHARS[usize::from(b)]
}

const TCHARS: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0u8;
    while b < 128 {
        table[b as usize] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        b += 1;
    }
    table
};

/// True when `value` may stand in a field line: no control bytes but tab (RFC 9110 §5.5).
pub fn is_field_value(value: &[u8]) -> bool {
    // Without an early end, so that it is done many bytes at a time.
    !value.iter().fold(false, |bad, &b| {
        bad | ((b < 0x20) & (b != b'\t')) | (b == 0x7f)
    })
}

/// Fields that frame a message or concern one hop: the host writes them, filters may not. In any case.
pub fn is_host_owned(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 10] = [
        b"connection",
        b"content-length",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    NAMES.iter().any(|owned| owned.eq_ignore_ascii_case(name))
}
