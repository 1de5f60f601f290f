//! The harness: real processes, real sockets, real clients, all on loopback and all with a deadline.
//!
//! A test reads as origin, proxy, client, assertion:
//!
//! ```no_run
//! use sluicegate_tests::{addresses::Addresses, backend::Backend, client::curl, proxy::Proxy};
//!
//! let web1 = Backend::http("web1");
//! let bind = Addresses::new().free();
//! let proxy = Proxy::start(&format!(
//!     "pools: {{web: {{endpoints: [{}]}}}}\nlisteners: [{{name: web, bind: {bind}, protocol: http, pool: web}}]",
//!     web1.address(),
//! ));
//! assert_eq!(curl(&[&format!("http://{bind}/")]).body, "web1");
//! drop(proxy);
//! ```
//!
//! What goes wrong in the harness itself panics with a sentence: this is test code and a panic is how a test fails.

pub mod addresses;
pub mod backend;
pub mod client;
pub mod dns;
pub mod fuzz;
pub mod proxy;
pub mod sockets;
pub mod wait;
