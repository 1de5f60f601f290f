//! Packs heads as the host does.

use crate::head::{ABSENT, FORMAT, HEADER, slot};
use crate::plan::{Facts, Interest};

/// Facts that a plan names.
const FACTS: usize = 20;

/// What a head is packed from.
#[derive(Debug, Default)]
pub struct Block<'a> {
    pub facts: [Option<&'a [u8]>; slot::COUNT],
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    pub status: u16,
    pub flags: u16,
    pub state: u64,
    /// Client, peer, local.
    pub ports: [u16; 3],
    /// Duration, bytes received, bytes sent.
    pub counts: [u64; 3],
}

impl Block<'_> {
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(slot::COUNT as u16).to_le_bytes());
        out.extend_from_slice(&(self.fields.len() as u32).to_le_bytes());
        out.extend_from_slice(&(HEADER as u32).to_le_bytes());
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.state.to_le_bytes());
        for port in self.ports {
            out.extend_from_slice(&port.to_le_bytes());
        }
        out.extend_from_slice(&[0; 2]);
        for count in self.counts {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.resize(HEADER, 0);

        let mut text_at = HEADER + slot::COUNT * 8 + self.fields.len() * 16;
        let mut text = Vec::new();
        let mut point = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(text_at as u32).to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            text.extend_from_slice(bytes);
            text_at += bytes.len();
        };
        for fact in self.facts {
            match fact {
                Some(bytes) => point(&mut out, bytes),
                None => {
                    out.extend_from_slice(&ABSENT.to_le_bytes());
                    out.extend_from_slice(&[0; 4]);
                }
            }
        }
        for (name, value) in &self.fields {
            point(&mut out, name);
            point(&mut out, value);
        }
        out.extend_from_slice(&text);
        out
    }
}

/// Makes the facts absent that the plan does not ask for, as the host does.
pub fn hide(mut block: Vec<u8>, wanted: Facts) -> Vec<u8> {
    for slot in (0..FACTS).filter(|slot| wanted.bits() & 1 << slot == 0) {
        let at = HEADER + slot * 8;
        block[at..at + 4].copy_from_slice(&ABSENT.to_le_bytes());
    }
    block
}

/// The fields that a phase with this interest is shown.
pub fn shown<'a>(
    fields: &'a [(String, Vec<u8>)],
    interest: &Interest,
) -> Vec<(&'a [u8], &'a [u8])> {
    fields
        .iter()
        .filter(|(name, _)| match interest {
            Interest::None => false,
            Interest::Some(names) => names.contains(name),
            Interest::All => true,
        })
        .map(|(name, value)| (name.as_bytes(), value.as_slice()))
        .collect()
}
