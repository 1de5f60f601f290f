//! One operation of a verdict as it lies in the block (PACKED.md, "Operations").

use crate::head::{is_field_value, is_host_owned, is_token};

use super::bad_verdict::BadVerdict;

const HEADER: usize = 8;

/// One operation as it lies in the block.
pub(super) struct RawOp<'a> {
    pub(super) code: u8,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> RawOp<'a> {
    /// One operation off the front, and the rest.
    pub(super) fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BadVerdict> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER>()
            .ok_or(BadVerdict::Overrun)?;
        let name_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let value_len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (name, rest) = rest.split_at_checked(name_len).ok_or(BadVerdict::Overrun)?;
        let (value, rest) = rest
            .split_at_checked(value_len)
            .ok_or(BadVerdict::Overrun)?;
        let code = header[0];
        if header[1] != 0 {
            return Err(BadVerdict::Argument(code));
        }
        Ok((Self { code, name, value }, rest))
    }

    pub(super) fn number(&self) -> Result<u32, BadVerdict> {
        match <[u8; 4]>::try_from(self.value) {
            Ok(bytes) => Ok(u32::from_le_bytes(bytes)),
            Err(_) => Err(BadVerdict::Argument(self.code)),
        }
    }
}

/// Whether a filter may write this field.
pub(super) fn field(name: &[u8], value: &[u8]) -> Result<(), BadVerdict> {
    let text = || String::from_utf8_lossy(&name[..name.len().min(80)]).into_owned();
    if !is_token(name) {
        return Err(BadVerdict::Name(text()));
    }
    if is_host_owned(name) {
        return Err(BadVerdict::HostOwned(text()));
    }
    if !is_field_value(value) {
        return Err(BadVerdict::Value(text()));
    }
    Ok(())
}
