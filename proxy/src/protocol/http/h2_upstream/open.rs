//! From a transport to a connection that exchanges share.

use super::pulse::{Counted, Finding, Pulse, Traffic};
use crate::config::PingSettings;
use crate::generation::Multiplexed;
use crate::head::HeadLimits;
use crate::io::Io;
use crate::upstream::{
    ConnectionClass, Endpoint, Offence, SharedConnection, SharedConnections, StreamPermit,
};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Streams on one connection, if the endpoint allows as many.
const STREAMS_MAX: usize = 256;
/// What an endpoint may send on one stream before its client has taken it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much for every stream, so that clients that do not read hold nobody else up.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// Body bytes of one stream that wait for their turn on the connection.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// Fields of one response that are read at least: what is over the limits is then known for what it is.
const HEADER_BYTES_MIN: usize = 256 * 1024;

/// Streams that were cancelled here and whose late frames are passed over, and for how long.
const RESETS_REMEMBERED: usize = 16 * 1024;
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// Frames for streams that are forgotten, over the life of a connection. It bounds the answers to an endpoint that does not
/// read them.
const LATE_FRAMES_MAX: usize = 64 * 1024;
/// What small frames of DATA may cost in the crate, at some 256 bytes each. Those that wait for a client are collected, see
/// [`Upstream::ease`]. But the crate never gives back what it counts for frames that came late, for streams that were
/// cancelled, and ends the connection when that is too much. So one on which many were is left to those that use it.
const SMALL_FRAMES_BYTES: usize = 256 * 1024 * 1024;

/// What an orderly end may take: an endpoint that does not read would keep the connection for ever.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Stands for the number of streams as long as the endpoint has not told its settings, which have 32 bits.
const STREAMS_UNKNOWN: usize = usize::MAX - 1;

/// Where a connection is shared, and with what care.
pub struct Place<'a> {
    pub shared: &'a SharedConnections<Multiplexed>,
    pub endpoint: &'a Arc<Endpoint>,
    pub class: ConnectionClass,
    pub idle_max: Duration,
    pub pings: &'a PingSettings,
}

/// Begins HTTP/2 on a connection; from here on a task moves its frames. Needs a worker's runtime. The connection is made
/// known at `place`; it gets one exchange until the endpoint has said how many it takes, and `dialling` ends then.
pub async fn open<D: 'static>(
    io: Io,
    limits: &HeadLimits,
    dialling: D,
    place: Place<'_>,
) -> Result<StreamPermit<Multiplexed>, h2::Error> {
    let traffic = Traffic::default();
    // HTTP/2 counts 32 bytes more for each field. What is beyond that is no answer that could be passed on.
    let list_max = (limits.bytes + 32 * limits.fields).max(HEADER_BYTES_MIN);
    let list_max = list_max.min(u32::MAX as usize);
    let (streams, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(STREAMS_UNKNOWN)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(list_max as u32)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        // Clients cancel: what of a cancelled response is still under way must not end the connection for the others.
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESETS_REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(LATE_FRAMES_MAX))
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .handshake(Counted::new(io, traffic.clone()))
        .await?;
    let (used, unused) = tokio::sync::oneshot::channel();
    let multiplexed = Multiplexed {
        streams,
        cancelled: Cell::new(0),
        used,
        asked: traffic.asked.clone(),
    };
    let (shared, endpoint, class) = (place.shared.clone(), place.endpoint.clone(), place.class);
    let permit = shared.open(endpoint.id, class, multiplexed, place.idle_max);
    let mut pulse = Pulse::new(place.pings, traffic, connection.ping_pong());
    let line = Rc::downgrade(permit.line());
    let watched = line.clone();
    tokio::task::spawn_local(async move {
        let mut dialling = Some(dialling);
        let ended = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            if connection.max_concurrent_send_streams() != STREAMS_UNKNOWN {
                dialling = None;
            }
            if let (Some(pulse), Some(line)) = (&mut pulse, watched.upgrade()) {
                match pulse.poll(cx, line.is_busy(), line.heard()) {
                    Finding::Nothing => {}
                    Finding::Arrived => {
                        line.believe();
                        shared.heard_from(endpoint.id, class);
                    }
                    Finding::Silent => {
                        tracing::info!(
                            pool = &*endpoint.pool,
                            endpoint = &*endpoint.text,
                            "an endpoint answers no PING on its HTTP/2 connection: requests go elsewhere until it does"
                        );
                        shared.doubt(&line);
                    }
                }
            }
            polled
        });
        let cut = async {
            let _ = unused.await;
            tokio::time::sleep(CLOSE_MAX).await;
        };
        tokio::select! {
            ended = ended => if let Err(error) = ended {
                report(&endpoint, &error);
            },
            () = cut => tracing::debug!("HTTP/2 connection to an endpoint cut"),
        }
        if let Some(line) = line.upgrade() {
            line.retire();
        }
    });
    Ok(permit)
}

/// Logs how a connection ended, and counts it if it was this side that ended it: that takes others' exchanges along, and
/// whoever looks for them finds it.
fn report(endpoint: &Endpoint, error: &h2::Error) {
    let (pool, name) = (&*endpoint.pool, &*endpoint.text);
    if !(error.is_go_away() && error.is_library()) {
        tracing::debug!(pool, endpoint = name, %error, "HTTP/2 connection to an endpoint ended");
        return;
    }
    let code = error.reason().unwrap_or(h2::Reason::PROTOCOL_ERROR);
    let offence = match code {
        h2::Reason::ENHANCE_YOUR_CALM => Offence::Flood,
        _ => Offence::Protocol,
    };
    endpoint.count_goaway(offence);
    let reason = offence.as_str();
    tracing::info!(pool, endpoint = name, reason, ?code, %error, "HTTP/2 connection to an endpoint ended by GOAWAY");
}

/// Whether one more stream can be opened beside those that run. Retires a connection that is ending.
pub fn has_room(line: &SharedConnection<Multiplexed>, running: usize) -> bool {
    // A clone waits for no stream of another, so that this only asks how the connection is.
    let mut send = line.connection.streams.clone();
    match send.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => match send.current_max_send_streams() {
            STREAMS_UNKNOWN => false,
            allowed => running < allowed.min(STREAMS_MAX),
        },
        Poll::Ready(Err(_)) => {
            line.retire();
            false
        }
        Poll::Pending => false,
    }
}
