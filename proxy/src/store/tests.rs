//! One table of cases for both kinds of store, and what each has alone.

mod cases;
mod memory;
mod redis;
