//! Effects of filters that are called without a request: those of sessions, and ticks.

use super::call::Caller;
use super::client_origin::Origin;
use super::exchange::make_call;
use super::suspended::{Results, perform};
use crate::chain::Suspension;
use crate::connection::Connection;
use crate::generation::Service;
use std::pin::Pin;
use std::rc::Rc;

/// Performs what filters of sessions and ticks are suspended for, who know nothing of HTTP.
pub fn perform_without_request<'a>(
    service: &'a Rc<Service>,
    connection: &'a Rc<Connection>,
    suspension: &'a Suspension,
) -> Pin<Box<dyn Future<Output = Results> + 'a>> {
    Box::pin(async move {
        let caller = Caller {
            service,
            connection,
            client: connection.peer.ip(),
            origin: Origin::of_connection(connection),
            make: make_call,
        };
        perform(&caller, suspension).await
    })
}
