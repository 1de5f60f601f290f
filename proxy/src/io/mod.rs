//! Byte-level tools: timers, buffers, pipes.
