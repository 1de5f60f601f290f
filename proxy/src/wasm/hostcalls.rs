//! How often a guest may call the host during one call: what each of these costs is the host's time, which the guest's
//! deadline does not interrupt.

/// The calls that are left to the running call.
#[derive(Debug, Clone)]
pub(super) struct HostCalls {
    max: u32,
    left: u32,
}

/// A guest made more calls into the host than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("called the proxy more than {max} times in one call")]
pub(super) struct TooManyHostCalls {
    max: u32,
}

impl HostCalls {
    /// `max` for each call: `limits.host-calls`.
    pub(super) fn new(max: u32) -> Self {
        Self { max, left: max }
    }

    /// A call of the guest begins.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.left = self.max;
    }

    /// The guest calls the host. Every function of the host does this first and ends with the error, which traps.
    #[inline]
    pub(super) fn take(&mut self) -> wasmtime::Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(TooManyHostCalls { max: self.max }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_its_own() {
        let mut calls = HostCalls::new(2);
        for _ in 0..2 {
            assert!(calls.take().is_ok());
            assert!(calls.take().is_ok());
            for _ in 0..2 {
                let refused = calls.take().expect_err("spent");
                let error = refused.downcast_ref::<TooManyHostCalls>();
                assert_eq!(error, Some(&TooManyHostCalls { max: 2 }));
            }
            calls.begin();
        }
    }
}
