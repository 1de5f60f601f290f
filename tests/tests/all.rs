//! Every integration test, in one binary: a module per topic.

#[path = "all/check.rs"]
mod check;
#[path = "all/cli.rs"]
mod cli;
#[path = "all/corpora.rs"]
mod corpora;
#[path = "all/drain.rs"]
mod drain;
#[path = "all/drop.rs"]
mod drop;
#[path = "all/examples.rs"]
mod examples;
#[path = "all/filters.rs"]
mod filters;
#[path = "all/frames.rs"]
mod frames;
#[path = "all/framing.rs"]
mod framing;
#[path = "all/from_scratch.rs"]
mod from_scratch;
#[path = "all/guest.rs"]
mod guest;
#[path = "all/headers.rs"]
mod headers;
#[path = "all/hostile_guests/mod.rs"]
mod hostile_guests;
#[path = "all/hot_swap.rs"]
mod hot_swap;
#[path = "all/http2.rs"]
mod http2;
#[path = "all/l4.rs"]
mod l4;
#[path = "all/layers.rs"]
mod layers;
#[path = "all/reference.rs"]
mod reference;
#[path = "all/reload.rs"]
mod reload;
#[path = "all/retries.rs"]
mod retries;
#[path = "all/rig.rs"]
mod rig;
#[path = "all/scenarios/mod.rs"]
mod scenarios;
#[path = "all/statuses.rs"]
mod statuses;
#[path = "all/telemetry.rs"]
mod telemetry;
#[path = "all/timeouts.rs"]
mod timeouts;
#[path = "all/upgrade.rs"]
mod upgrade;
