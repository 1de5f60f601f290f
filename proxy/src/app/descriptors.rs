//! Whether the process may open as many files as its listeners may have connections.

use crate::config::Config;

/// What a client's connection takes: its own descriptor, and most often one to an endpoint.
const PER_CONNECTION: u64 = 2;

/// Warns when the limit of open files ends connections before `limits.connections` makes them wait.
pub fn warn(config: &Config) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let listeners = config.listeners.iter();
    let connections: u64 = listeners.map(|l| l.limits.connections as u64).sum();
    if let Some(limit) = too_small(connections, limit.current) {
        tracing::warn!(
            limit,
            connections,
            wanted = connections.saturating_mul(PER_CONNECTION),
            "the limit of open files (`ulimit -n`) is too small for `limits.connections` of the listeners: raise it \
             (LimitNOFILE= in a unit), or lower those"
        );
    }
}

/// The limit, when it is.
fn too_small(connections: u64, limit: Option<u64>) -> Option<u64> {
    limit.filter(|&limit| limit < connections.saturating_mul(PER_CONNECTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_may_take_two() {
        assert_eq!(too_small(100, Some(199)), Some(199));
        assert_eq!(too_small(100, Some(200)), None);
        assert_eq!(too_small(100, None), None);
    }
}
