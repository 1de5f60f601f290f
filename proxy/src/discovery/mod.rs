//! Where a pool's addresses come from.
