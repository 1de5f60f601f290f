//! The process: build a generation, reload, drain, run workers and control.
