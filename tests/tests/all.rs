//! Every integration test, in one binary: a module per topic.

#[path = "all/drop.rs"]
mod drop;
#[path = "all/framing.rs"]
mod framing;
#[path = "all/guest.rs"]
mod guest;
#[path = "all/headers.rs"]
mod headers;
#[path = "all/layers.rs"]
mod layers;
#[path = "all/retries.rs"]
mod retries;
#[path = "all/rig.rs"]
mod rig;
#[path = "all/statuses.rs"]
mod statuses;
