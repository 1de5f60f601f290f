//! The accept loop of one worker and one listening socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, poll_fn, select};
use tokio::net::{TcpListener, TcpStream};

use super::seats::{Seat, Seats};

/// The pause after an error that more accepting would only repeat: no descriptors, no memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `stop` is ready and hands every connection to `take`, which spawns its task and returns at once.
/// Waits for nothing but a connection and a seat; over the limit connections wait in the kernel's queue.
///
/// What the kernel has queued when `stop` comes is still accepted, for closing the socket would reset it. The socket is
/// closed on return.
pub async fn accept(
    name: &str,
    listener: TcpListener,
    seats: &Arc<Seats>,
    stop: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, SocketAddr, Seat),
) {
    let mut stop = pin!(stop);
    let mut trouble = Trouble::default();
    loop {
        let next = pin!(next(&listener, seats));
        let accepted = match select(stop.as_mut(), next).await {
            Either::Left(((), _)) => break,
            Either::Right((accepted, _)) => accepted,
        };
        match accepted {
            Ok((stream, peer, seat)) => {
                trouble.over(name);
                take(stream, peer, seat);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                trouble.met(name, &error);
                let pause = pin!(tokio::time::sleep(PAUSE));
                if let Either::Left(_) = select(stop.as_mut(), pause).await {
                    break;
                }
            }
        }
    }
    accept_queued(listener, seats, take);
}

/// Hands over what is queued on `listener` now, as far as there are seats, then closes it. Asks the kernel itself: what
/// came since the runtime last looked is queued too.
fn accept_queued(
    listener: TcpListener,
    seats: &Arc<Seats>,
    mut take: impl FnMut(TcpStream, SocketAddr, Seat),
) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Some(seat) = seats.try_take() {
        let accepted = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok((stream, peer)) => take(stream, peer, seat),
            Err(error) if concerns_one_connection(&error) => {}
            // Usually that the queue is empty.
            Err(_) => return,
        }
    }
}

/// The next connection with its seat. A seat is held only while one is there to be accepted.
async fn next(
    listener: &TcpListener,
    seats: &Arc<Seats>,
) -> io::Result<(TcpStream, SocketAddr, Seat)> {
    loop {
        let seat = seats.take().await;
        let mut seat = Some(seat);
        let accepted = poll_fn(|cx| {
            // Woken by a connection: it must find a seat, else wait for one.
            let Some(held) = seat.take().or_else(|| seats.try_take()) else {
                return Poll::Ready(None);
            };
            match listener.poll_accept(cx) {
                Poll::Ready(result) => {
                    Poll::Ready(Some(result.map(|(stream, peer)| (stream, peer, held))))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Some(accepted) = accepted {
            return accepted;
        }
    }
}

/// Errors that Linux reports through `accept` though they are of the one connection that was about to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    let kinds = [
        ConnectionAborted,
        ConnectionReset,
        ConnectionRefused,
        Interrupted,
        NetworkDown,
        NetworkUnreachable,
        HostUnreachable,
        PermissionDenied, // a firewall rule refused it
        TimedOut,
    ];
    let protocol_errors = [
        rustix::io::Errno::PROTO,
        rustix::io::Errno::NOPROTOOPT,
        rustix::io::Errno::OPNOTSUPP,
        rustix::io::Errno::HOSTDOWN,
        rustix::io::Errno::NONET,
    ];
    kinds.contains(&error.kind())
        || rustix::io::Errno::from_io_error(error).is_some_and(|e| protocol_errors.contains(&e))
}

/// Tells of a burst of errors once at its start and once at its end.
#[derive(Debug, Default)]
struct Trouble {
    errors: u64,
}

impl Trouble {
    fn met(&mut self, listener: &str, error: &io::Error) {
        self.errors += 1;
        if self.errors == 1 {
            tracing::warn!(
                listener,
                error = crate::error::why(error),
                "cannot accept connections; trying on"
            );
        }
    }

    fn over(&mut self, listener: &str) {
        if self.errors > 0 {
            tracing::info!(
                listener,
                errors = self.errors,
                "accepting connections again"
            );
            self.errors = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::io::AsyncReadExt;
    use tokio::sync::Notify;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_a_seat() {
        let (listener, address) = listener().await;
        let (seats, stop) = (Seats::new(2), Notify::new());
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let accepting = accept(
            "web",
            listener,
            &seats,
            stop.notified(),
            |stream, _, seat| {
                sender.send((stream, seat)).unwrap();
            },
        );
        let test = async {
            let _clients = [
                TcpStream::connect(address).await.unwrap(),
                TcpStream::connect(address).await.unwrap(),
                TcpStream::connect(address).await.unwrap(),
            ];
            let first = accepted.recv().await.unwrap();
            let _second = accepted.recv().await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(accepted.try_recv().is_err(), "a third was accepted");
            drop(first);
            let _third = accepted.recv().await.unwrap();
            assert_eq!(seats.taken(), 2);
            stop.notify_one();
        };
        tokio::join!(accepting, test);
    }

    #[tokio::test]
    async fn what_is_queued_at_the_end_is_served() {
        let (listener, address) = listener().await;
        let seats = Seats::new(100);
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let accepted = RefCell::new(Vec::new());
        // Already told to stop, before it accepted anything.
        accept(
            "web",
            listener,
            &seats,
            std::future::ready(()),
            |stream, _, seat| {
                accepted.borrow_mut().push((stream, seat));
            },
        )
        .await;
        assert_eq!(accepted.borrow().len(), 5);
        accepted.borrow_mut().clear();
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[test]
    fn errors_of_the_system_are_told_from_errors_of_a_connection() {
        let errno = |errno: rustix::io::Errno| io::Error::from(errno);
        assert!(concerns_one_connection(&errno(
            rustix::io::Errno::CONNABORTED
        )));
        assert!(concerns_one_connection(&errno(rustix::io::Errno::PROTO)));
        assert!(!concerns_one_connection(&errno(rustix::io::Errno::MFILE)));
        assert!(!concerns_one_connection(&errno(rustix::io::Errno::NOMEM)));
    }
}
