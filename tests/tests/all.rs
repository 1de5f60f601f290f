//! Every integration test, in one binary: a module per topic.

#[path = "all/check.rs"]
mod check;
#[path = "all/cli.rs"]
mod cli;
#[path = "all/examples.rs"]
mod examples;
#[path = "all/from_scratch.rs"]
mod from_scratch;
#[path = "all/layers.rs"]
mod layers;
#[path = "all/scenarios/mod.rs"]
mod scenarios;
