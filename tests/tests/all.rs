//! Every integration test, in one binary: a module per topic.

#[path = "all/auth_request.rs"]
mod auth_request;
#[path = "all/bodies/mod.rs"]
mod bodies;
#[path = "all/capabilities.rs"]
mod capabilities;
#[path = "all/check.rs"]
mod check;
#[path = "all/circles.rs"]
mod circles;
#[path = "all/cli.rs"]
mod cli;
#[path = "all/client_origin.rs"]
mod client_origin;
#[path = "all/components.rs"]
mod components;
#[path = "all/corpora.rs"]
mod corpora;
#[path = "all/drain.rs"]
mod drain;
#[path = "all/drain_http2.rs"]
mod drain_http2;
#[path = "all/drop.rs"]
mod drop;
#[path = "all/early_answers.rs"]
mod early_answers;
#[path = "all/examples.rs"]
mod examples;
#[path = "all/explain.rs"]
mod explain;
#[path = "all/filters.rs"]
mod filters;
#[path = "all/frames.rs"]
mod frames;
#[path = "all/framing.rs"]
mod framing;
#[path = "all/from_scratch.rs"]
mod from_scratch;
#[path = "all/grpc.rs"]
mod grpc;
#[path = "all/guest.rs"]
mod guest;
#[path = "all/half_closed.rs"]
mod half_closed;
#[path = "all/handlers.rs"]
mod handlers;
#[path = "all/handover.rs"]
mod handover;
#[path = "all/headers.rs"]
mod headers;
#[path = "all/hostile_backends/mod.rs"]
mod hostile_backends;
#[path = "all/hostile_clients/mod.rs"]
mod hostile_clients;
#[path = "all/hostile_guests/mod.rs"]
mod hostile_guests;
#[path = "all/hostile_http2/mod.rs"]
mod hostile_http2;
#[path = "all/hot_swap.rs"]
mod hot_swap;
#[path = "all/http2.rs"]
mod http2;
#[path = "all/layers.rs"]
mod layers;
#[path = "all/middleware.rs"]
mod middleware;
#[path = "all/mistakes.rs"]
mod mistakes;
#[path = "all/names.rs"]
mod names;
#[path = "all/operating.rs"]
mod operating;
#[path = "all/rate_limit.rs"]
mod rate_limit;
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
#[path = "all/semantics/mod.rs"]
mod semantics;
#[path = "all/services.rs"]
mod services;
#[path = "all/silence.rs"]
mod silence;
#[path = "all/soak.rs"]
mod soak;
#[path = "all/statuses.rs"]
mod statuses;
#[path = "all/stream.rs"]
mod stream;
#[path = "all/stream_data.rs"]
mod stream_data;
#[path = "all/suspend.rs"]
mod suspend;
#[path = "all/telemetry.rs"]
mod telemetry;
#[path = "all/tick.rs"]
mod tick;
#[path = "all/timeouts.rs"]
mod timeouts;
#[path = "all/upgrade.rs"]
mod upgrade;
#[path = "all/upstream_http2.rs"]
mod upstream_http2;
#[path = "all/upstream_tls.rs"]
mod upstream_tls;
#[path = "all/websocket_frames.rs"]
mod websocket_frames;
#[path = "all/websocket_http2.rs"]
mod websocket_http2;
