//! TLS towards clients: certificates from files, chosen by server name; sessions that resume across reloads. TLS towards
//! endpoints: authorities, names, client certificates.
//!
//! The only room that builds rustls configurations. Loading reads files and belongs on the control thread; what it
//! makes is shared by the workers.

mod certificate;
mod client;
mod facts;
mod file;
mod names;
pub mod peek;
mod self_signed;
mod server;
mod suites;

pub use certificate::CertificateFacts;
pub use client::{ClientTls, Offer, agreed_http2};
pub use facts::{facts, spoke_plain};
pub use file::FileMark;
pub use peek::{ClientHello, FirstBytes, client_hello};
pub use self_signed::{SelfSigned, SelfSignedError, self_signed};
pub use server::ServerTls;
