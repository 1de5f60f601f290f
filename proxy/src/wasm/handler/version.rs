//! Versions of `wasi:http`.

/// The version of `wasi:http` that a component is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `wasi:http/proxy@0.2`: one function, which waits where it stands.
    V2,
    /// `wasi:http/service@0.3`: tasks, streams and futures of the component model.
    V3,
}
