//! Every integration test, in one binary: a module per topic.

#[path = "all/layers.rs"]
mod layers;
#[path = "all/reference.rs"]
mod reference;
