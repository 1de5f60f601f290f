//! What a module that is called in one crossing passes to a host function: addresses and lengths in its memory, as the
//! canonical ABI lays lists and texts out.

use wasmtime::{Caller, Memory};

/// Bytes of one text, beyond which the rest is not looked at.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Elements of one list; what takes lists takes far fewer.
const ELEMENTS_MAX: usize = 1024;

/// What is no UTF-8 is replaced.
pub(super) fn text<T>(
    caller: &Caller<'_, T>,
    memory: Option<Memory>,
    at: i32,
    length: i32,
) -> wasmtime::Result<String> {
    let bytes = bytes(caller, memory, at, length as u32 as usize)?;
    Ok(String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned())
}

/// A list of texts: pairs of address and length.
pub(super) fn texts<T>(
    caller: &Caller<'_, T>,
    memory: Option<Memory>,
    at: i32,
    count: i32,
) -> wasmtime::Result<Vec<String>> {
    let pairs = elements::<T, 8>(caller, memory, at, count)?;
    let word = |pair: &[u8; 8], at: usize| {
        i32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]])
    };
    pairs
        .iter()
        .map(|pair| text(caller, memory, word(pair, 0), word(pair, 4)))
        .collect()
}

pub(super) fn numbers<T>(
    caller: &Caller<'_, T>,
    memory: Option<Memory>,
    at: i32,
    count: i32,
) -> wasmtime::Result<Vec<f64>> {
    let all = elements::<T, 8>(caller, memory, at, count)?;
    Ok(all.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn elements<T, const N: usize>(
    caller: &Caller<'_, T>,
    memory: Option<Memory>,
    at: i32,
    count: i32,
) -> wasmtime::Result<Vec<[u8; N]>> {
    let count = count as u32 as usize;
    if count > ELEMENTS_MAX {
        return Err(wasmtime::Error::msg(format!(
            "a list has {count} elements, more than {ELEMENTS_MAX}"
        )));
    }
    let (all, _) = bytes(caller, memory, at, count * N)?.as_chunks::<N>();
    Ok(all.to_vec())
}

fn bytes<'c, T>(
    caller: &'c Caller<'_, T>,
    memory: Option<Memory>,
    at: i32,
    length: usize,
) -> wasmtime::Result<&'c [u8]> {
    let at = at as u32 as usize;
    let memory = memory.map(|memory| memory.data(caller));
    memory
        .and_then(|memory| memory.get(at..at.checked_add(length)?))
        .ok_or_else(|| wasmtime::Error::msg("what it passes lies outside of its memory"))
}
