//! What an instance hands over to the one that takes its place: `save` and `restore` of the contract.

use wasmtime::component::TypedFunc;

use super::fault::{Fault, FaultKind};

pub(super) type Save = TypedFunc<(), (Vec<u8>,)>;
pub(super) type Restore = TypedFunc<(&'static [u8],), (Vec<u8>,)>;

/// The version at the head of what was saved.
const VERSION_BYTES: usize = 4;

/// What the guest saved, when it is something that another may be given: none when it kept nothing.
pub(super) fn checked(state: Vec<u8>, bytes_max: usize) -> Result<Option<Vec<u8>>, Fault> {
    match state.len() {
        0 => Ok(None),
        n if n < VERSION_BYTES => Err(Fault::new(
            FaultKind::Output,
            format!("saved {n} bytes, fewer than the {VERSION_BYTES} of a version"),
        )),
        n if n > bytes_max => Err(too_large(bytes_max)),
        _ => Ok(Some(state)),
    }
}

/// It saved more than may be copied out of it.
pub(super) fn too_large(bytes_max: usize) -> Fault {
    Fault::new(
        FaultKind::Output,
        format!("saved more than the {bytes_max} bytes of `limits: {{state: …}}`"),
    )
}
