//! The operations of suspended calls and their results (PACKED.md, "Suspend and resume").

pub(crate) const TOKEN: u8 = 65;
pub(crate) const SLEEP: u8 = 80;
pub(crate) const CALL: u8 = 81;
pub(crate) const METHOD: u8 = 82;
pub(crate) const RESPONSE_BYTES: u8 = 83;
pub(crate) const GET: u8 = 84;
pub(crate) const SET: u8 = 85;
pub(crate) const COMPARE_AND_SET: u8 = 86;
pub(crate) const INCREMENT: u8 = 87;
pub(crate) const DELETE: u8 = 88;

pub(crate) const DONE: u8 = 96;
pub(crate) const RESPONSE: u8 = 97;
pub(crate) const VALUE: u8 = 98;
pub(crate) const NO_VALUE: u8 = 99;
pub(crate) const FAILED: u8 = 100;

/// Appends one operation.
pub(crate) fn write(block: &mut Vec<u8>, code: u8, name: &[u8], value: &[u8]) {
    // Longer ones are refused by the host in any case.
    let name = &name[..name.len().min(usize::from(u16::MAX))];
    block.extend_from_slice(&[code, 0]);
    block.extend_from_slice(&(name.len() as u16).to_le_bytes());
    block.extend_from_slice(&(value.len() as u32).to_le_bytes());
    block.extend_from_slice(name);
    block.extend_from_slice(value);
}

/// The operations of a block, in order, as (code, name, value); what does not fit the block ends it.
pub(crate) fn read(block: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<8>()?;
        let [code, _, n0, n1, v0, v1, v2, v3] = *header;
        let name_len = usize::from(u16::from_le_bytes([n0, n1]));
        let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let (name, after) = after.split_at_checked(name_len)?;
        let (value, after) = after.split_at_checked(value_len)?;
        rest = after;
        Some((code, name, value))
    })
}
