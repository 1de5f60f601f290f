//! Every integration test, in one binary: a module per topic.

#[path = "all/check.rs"]
mod check;
#[path = "all/cli.rs"]
mod cli;
#[path = "all/drop.rs"]
mod drop;
#[path = "all/examples.rs"]
mod examples;
#[path = "all/framing.rs"]
mod framing;
#[path = "all/from_scratch.rs"]
mod from_scratch;
#[path = "all/guest.rs"]
mod guest;
#[path = "all/headers.rs"]
mod headers;
#[path = "all/layers.rs"]
mod layers;
#[path = "all/reference.rs"]
mod reference;
#[path = "all/retries.rs"]
mod retries;
#[path = "all/rig.rs"]
mod rig;
#[path = "all/scenarios/mod.rs"]
mod scenarios;
#[path = "all/statuses.rs"]
mod statuses;
#[path = "all/timeouts.rs"]
mod timeouts;
#[path = "all/upgrade.rs"]
mod upgrade;
