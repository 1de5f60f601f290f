//! The protocols there are: a line for each.

use super::contract::Protocol;
use super::http::Http;
use super::http::without_request::perform_without_request;
use super::stream::Tcp;
use crate::config::{self, ListenerConfig};

static HTTP: Http = Http;
static TCP: Tcp = Tcp {
    perform: perform_without_request,
};

pub static ALL: [&dyn Protocol; 2] = [&HTTP, &TCP];

/// What `listener` speaks.
pub fn of(listener: &ListenerConfig) -> &'static dyn Protocol {
    match listener.protocol {
        config::Protocol::Http => &HTTP,
        config::Protocol::Tcp => &TCP,
    }
}
