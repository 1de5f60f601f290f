//! The configuration: YAML in, checked values or diagnostics out.

mod model;
pub use model::*;
