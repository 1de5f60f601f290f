//! Lays out the head that packed phases are given (PACKED.md, "Head").

use smallvec::SmallVec;

use super::facts::{Facts, Shown};

const FORMAT: u16 = 1;
const HEADER: usize = 64;
const FACT_SIZE: usize = 8;
const FIELD_SIZE: usize = 16;
#[cfg(test)]
const ABSENT: u32 = u32::MAX;

const FLAG_TLS: u16 = 1;
const FLAG_HTTP2: u16 = 2;
const FLAG_BODY: u16 = 4;
const FLAG_LAST: u16 = 8;
const FLAG_MORE: u16 = 16;

/// A block to be written: its size is known before there is a place for it.
pub(super) struct Block<'a> {
    facts: &'a Facts<'a>,
    /// Fact slots that are written: up to the last that has something to say.
    slots: usize,
    lines: SmallVec<[(&'a [u8], &'a [u8]); 16]>,
    size: usize,
}

impl<'a> Block<'a> {
    #[inline]
    pub(super) fn new(facts: &'a Facts<'a>, shown: Shown<'a>) -> Self {
        let lines: SmallVec<[(&[u8], &[u8]); 16]> = shown.lines().collect();
        let line_bytes: usize = lines.iter().map(|(n, v)| n.len() + v.len()).sum();
        let (mut slots, mut fact_bytes) = (0, 0);
        for (slot, fact) in facts.shown() {
            slots = slot + 1;
            fact_bytes += fact.len();
        }
        let tables = HEADER + slots * FACT_SIZE + lines.len() * FIELD_SIZE;
        Self {
            facts,
            slots,
            size: tables + fact_bytes + line_bytes,
            lines,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Fills `out`, which has the block's size.
    #[inline]
    pub(super) fn write(&self, out: &mut [u8]) {
        let lines = self.lines.len();
        let fields_at = HEADER + self.slots * FACT_SIZE;
        let bytes_at = fields_at + lines * FIELD_SIZE;
        let (tables, bytes) = out.split_at_mut(bytes_at);
        let (header, tables) = tables.split_at_mut(HEADER);
        let (fact_table, field_table) = tables.split_at_mut(self.slots * FACT_SIZE);
        header.copy_from_slice(&header_of(self.facts, self.slots, lines));
        let mut bytes = Bytes {
            rest: bytes,
            at: bytes_at as u32,
        };
        // An offset of all ones is absent, whatever the length is.
        fact_table.fill(0xff);
        for (slot, value) in self.facts.shown() {
            let (offset, length) = bytes.push(value);
            let at = slot * FACT_SIZE;
            put(&mut fact_table[at..at + FACT_SIZE], [offset, length]);
        }
        for (entry, (name, value)) in field_table.chunks_exact_mut(FIELD_SIZE).zip(&self.lines) {
            let (name, name_len) = bytes.push(name);
            let (value, value_len) = bytes.push(value);
            put(entry, [name, name_len, value, value_len]);
        }
    }

    /// Writes it over what `out` held.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        // Not cleared: every byte is written, so that only growth is filled.
        out.resize(self.size, 0);
        self.write(out);
    }
}

fn header_of(facts: &Facts<'_>, slots: usize, fields: usize) -> [u8; HEADER] {
    let flags = (if facts.tls { FLAG_TLS } else { 0 })
        | (if facts.http2 { FLAG_HTTP2 } else { 0 })
        | (if facts.has_body { FLAG_BODY } else { 0 })
        | (if facts.last { FLAG_LAST } else { 0 })
        | (if facts.more { FLAG_MORE } else { 0 });
    let mut header = [0; HEADER];
    header[0..2].copy_from_slice(&FORMAT.to_le_bytes());
    header[2..4].copy_from_slice(&(slots as u16).to_le_bytes());
    header[4..8].copy_from_slice(&(fields as u32).to_le_bytes());
    header[8..12].copy_from_slice(&(HEADER as u32).to_le_bytes());
    header[12..14].copy_from_slice(&facts.status.to_le_bytes());
    header[14..16].copy_from_slice(&flags.to_le_bytes());
    header[16..24].copy_from_slice(&facts.state.to_le_bytes());
    header[24..26].copy_from_slice(&facts.client_port.to_le_bytes());
    header[26..28].copy_from_slice(&facts.peer_port.to_le_bytes());
    header[28..30].copy_from_slice(&facts.local_port.to_le_bytes());
    header[32..40].copy_from_slice(&facts.duration_us.to_le_bytes());
    header[40..48].copy_from_slice(&facts.bytes_in.to_le_bytes());
    header[48..56].copy_from_slice(&facts.bytes_out.to_le_bytes());
    header
}

/// The end of the block, filled from the front.
struct Bytes<'a> {
    rest: &'a mut [u8],
    at: u32,
}

impl Bytes<'_> {
    /// Answers (offset, length). The caller has summed the same values up, so there is room; heads are bounded far below
    /// 4 GiB by whoever reads them from the network.
    fn push(&mut self, value: &[u8]) -> (u32, u32) {
        let (to, rest) = std::mem::take(&mut self.rest).split_at_mut(value.len());
        to.copy_from_slice(value);
        self.rest = rest;
        let at = self.at;
        self.at += value.len() as u32;
        (at, value.len() as u32)
    }
}

fn put<const N: usize>(to: &mut [u8], words: [u32; N]) {
    for (bytes, word) in to.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Fact, ShownFacts, ShownFields};
    use super::*;
    use crate::head::Fields;

    fn u32_at(block: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
    }

    fn text(block: &[u8], at: usize) -> Option<&[u8]> {
        let (offset, length) = (u32_at(block, at), u32_at(block, at + 4));
        (offset != ABSENT).then(|| &block[offset as usize..(offset + length) as usize])
    }

    fn sample() -> Fields {
        let mut fields = Fields::default();
        fields.append(b"accept", b"*/*");
        fields.append(b"user-agent", b"curl/8");
        fields.append(b"accept", b"text/html");
        fields
    }

    #[test]
    fn the_block_reads_as_the_document_says() {
        let mut facts = Facts {
            status: 404,
            tls: true,
            has_body: true,
            last: true,
            state: 7,
            client_port: 1,
            peer_port: 2,
            local_port: 3,
            duration_us: 11,
            bytes_in: 12,
            bytes_out: 13,
            ..Facts::default()
        };
        facts.set(Fact::Method, b"GET");
        facts.set(Fact::Path, b"/");
        facts.set(Fact::Query, b"");
        let fields = sample();
        // What an earlier, longer call left behind.
        let mut block = vec![9; 999];
        let shown = Shown {
            fields: Some(&fields),
            which: &ShownFields::All,
        };
        Block::new(&facts, shown).write_to(&mut block);
        assert_eq!(block[0..4], [1, 0, 5, 0]);
        assert_eq!(u32_at(&block, 4), 3);
        assert_eq!(u32_at(&block, 8), 64);
        assert_eq!(block[12..16], [0x94, 1, 13, 0]);
        assert_eq!(block[16..24], 7u64.to_le_bytes());
        assert_eq!(block[24..32], [1, 0, 2, 0, 3, 0, 0, 0]);
        assert_eq!(block[32..40], 11u64.to_le_bytes());
        assert_eq!(block[48..56], 13u64.to_le_bytes());
        assert_eq!(text(&block, 64), Some(&b"GET"[..]));
        assert_eq!(text(&block, 64 + 8), None);
        assert_eq!(text(&block, 64 + 3 * 8), Some(&b"/"[..]));
        assert_eq!(text(&block, 64 + 4 * 8), Some(&b""[..]));
        let entries = 64 + 5 * 8;
        assert_eq!(text(&block, entries + 16), Some(&b"user-agent"[..]));
        assert_eq!(text(&block, entries + 24), Some(&b"curl/8"[..]));
        assert_eq!(text(&block, entries + 40), Some(&b"text/html"[..]));
    }

    #[test]
    fn only_the_wanted_facts_are_shown() {
        let mut facts = Facts::default();
        facts.set(Fact::Method, b"GET");
        facts.set(Fact::Scheme, b"http");
        facts.set(Fact::Path, b"/");
        facts.show(ShownFacts::new(super::super::FactSet::SCHEME));
        let mut block = Vec::new();
        Block::new(&facts, Shown::NOTHING).write_to(&mut block);
        assert_eq!(block.len(), 64 + 2 * 8 + 4);
        assert_eq!(text(&block, 64), None);
        assert_eq!(text(&block, 64 + 8), Some(&b"http"[..]));
    }

    #[test]
    fn only_the_wanted_fields_are_shown() {
        let fields = sample();
        let mut block = Vec::new();
        let count = |which: &ShownFields, block: &mut Vec<u8>| {
            let shown = Shown {
                fields: Some(&fields),
                which,
            };
            Block::new(&Facts::default(), shown).write_to(block);
            u32_at(block, 4)
        };
        assert_eq!(count(&ShownFields::None, &mut block), 0);
        let some = ShownFields::new(&super::super::Interest::Some(vec!["Accept".into()]));
        assert_eq!(count(&some, &mut block), 2);
        assert_eq!(count(&ShownFields::All, &mut block), 3);
    }
}
