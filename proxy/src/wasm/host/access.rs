//! How the functions of a capability reach their part of an instance's context, whatever that is.

use wasmtime::Memory;

use crate::wasm::hostcalls::HostCalls;

pub(in crate::wasm) struct Access<T, C> {
    pub(in crate::wasm) host_calls: fn(&mut T) -> &mut HostCalls,
    pub(in crate::wasm) part: fn(&mut T) -> &mut C,
    /// That of a guest which is called in one crossing.
    pub(in crate::wasm) memory: fn(&T) -> Option<Memory>,
}

impl<T, C> Clone for Access<T, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, C> Copy for Access<T, C> {}

impl<T, C> Access<T, C> {
    /// The capability's part, for a call that is counted here.
    pub(super) fn enter<'c>(&self, context: &'c mut T) -> wasmtime::Result<&'c mut C> {
        (self.host_calls)(context).take()?;
        Ok((self.part)(context))
    }
}
