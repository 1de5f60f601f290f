//! Backends on plain threads: HTTP servers that answer with their own name and remember what they were sent, servers
//! that do what a test scripts byte by byte, and TCP echoes.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::client::Raw;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A request as a backend got it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Request line and field lines exactly as they came, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
    pub peer: SocketAddr,
    /// Which of the backend's connections, from 0.
    pub connection: usize,
}

impl Received {
    pub fn field(&self, name: &str) -> Option<&str> {
        crate::client::field(&self.head, name)
    }

    /// Every value of a field, in order.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.split("\r\n").skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// A running backend; stops when dropped, cutting its connections.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stopping: AtomicBool,
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
    /// To cut them at the end.
    open: Mutex<Vec<TcpStream>>,
}

impl Backend {
    /// Answers every request `200` with its name as the body, and keeps connections open.
    pub fn http(name: &str) -> Self {
        let name = name.to_owned();
        Self::http_with(move |_| response(200, &name))
    }

    /// Answers every request with the bytes `answer` gives, which [`response`] makes well-formed ones of. An answer
    /// with `Connection: close`, or without `Content-Length`, ends the connection.
    pub fn http_with(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::http_with_at(loopback(), answer)
    }

    /// As [`Backend::http`] at an address that is free: a backend that comes back.
    pub fn http_at(address: SocketAddr, name: &str) -> Self {
        let name = name.to_owned();
        Self::http_with_at(address, move |_| response(200, &name))
    }

    fn http_with_at(
        bind: SocketAddr,
        answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::raw_with_state(bind, move |stream, connection, state| {
            let Ok(peer) = stream.peer_addr() else {
                return;
            };
            let mut raw = Raw::over(stream);
            while let Ok(head) = raw.head() {
                let Ok(body) = raw.body(&head, 0) else {
                    return;
                };
                let received = Received {
                    head,
                    body,
                    peer,
                    connection,
                };
                let bytes = answer(&received);
                // Remembered before it is answered, so that a test that has the answer finds the request.
                state.received().push(received);
                let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                let head = head.split("\r\n\r\n").next().unwrap_or_default();
                let ends = head.contains("connection: close") || !head.contains("content-length:");
                if raw.send(&bytes).is_err() || ends {
                    return;
                }
            }
        })
    }

    /// Hands each connection to `serve`, on a thread of its own, with its number from 0. The connection closes when
    /// `serve` returns.
    pub fn raw(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::raw_with_state(loopback(), move |stream, n, _| serve(stream, n))
    }

    /// Sends back what it gets, until the client is done.
    pub fn echo() -> Self {
        Self::raw(|stream, _| {
            let (mut from, mut to) = (&stream, &stream);
            let _ = std::io::copy(&mut from, &mut to);
        })
    }

    /// Sends `greeting` to each client and closes.
    pub fn tcp(greeting: &str) -> Self {
        let greeting = greeting.to_owned();
        Self::raw(move |mut stream, _| {
            let _ = stream.write_all(greeting.as_bytes());
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far, in the order they were answered.
    pub fn received(&self) -> Vec<Received> {
        self.state.received().clone()
    }

    /// Requests so far, which are then forgotten.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.state.received())
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Stops listening and cuts every connection; the address stays free for [`Backend::http_at`].
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn raw_with_state(
        bind: SocketAddr,
        serve: impl Fn(TcpStream, usize, &State) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(bind).unwrap_or_else(|why| panic!("bind {bind}: {why}"));
        // The usual 128 are few for a crowd: beyond, the kernel answers with cookies, some of which it then resets.
        rustix::net::listen(&listener, BACKLOG).unwrap_or_else(|why| panic!("listen: {why}"));
        let address = listener.local_addr().expect("local address");
        let state = Arc::new(State::default());
        let serve = Arc::new(serve);
        let accepting = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = accepting.connections.fetch_add(1, Ordering::SeqCst);
                if let Ok(copy) = stream.try_clone() {
                    let mut open = lock(&accepting.open);
                    // Those whose peer is gone are done with: a long test must not run out of descriptors.
                    open.retain(|s| s.peer_addr().is_ok());
                    open.push(copy);
                }
                let (serve, state) = (serve.clone(), accepting.clone());
                std::thread::spawn(move || {
                    let copy = stream.try_clone();
                    serve(stream, number, &state);
                    // The copy kept for cutting holds the connection open: end it for real.
                    if let Ok(copy) = copy {
                        let _ = copy.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        let _ = thread.join();
        for stream in lock(&self.state.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        lock(&self.received)
    }
}

/// A response with `Content-Length`.
pub fn response(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An address where nothing listens: connecting is refused.
pub fn refused() -> SocketAddr {
    crate::addresses::Addresses::new().free()
}

fn loopback() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{curl, get};

    #[test]
    fn http_backends_say_their_name_and_remember() {
        let web1 = Backend::http("web1");
        let got = get(web1.address(), "/a?b").expect("response");
        assert_eq!((got.status, got.text().as_str()), (200, "web1"));
        let url = format!("http://{}/c", web1.address());
        assert_eq!(curl(&["-d", "body", &url]).body, "web1");
        let received = web1.received();
        assert_eq!(received[0].target(), "/a?b");
        assert_eq!(received[1].body, b"body");
        assert_eq!(web1.connections(), 2);
        let address = web1.stop();
        assert_eq!(curl(&[&url]).code, 7, "refused");
        let again = Backend::http_at(address, "again");
        assert_eq!(get(again.address(), "/").expect("response").text(), "again");
    }

    #[test]
    fn connections_are_kept_and_counted() {
        let web1 = Backend::http("web1");
        let mut raw = Raw::connect(web1.address());
        for _ in 0..3 {
            raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
            assert_eq!(raw.response().expect("response").text(), "web1");
        }
        assert_eq!((web1.connections(), web1.received().len()), (1, 3));
    }

    #[test]
    fn tcp_backends() {
        let hello = Backend::tcp("hello");
        assert_eq!(
            Raw::connect(hello.address()).to_end().expect("end"),
            b"hello"
        );
        let echo = Backend::echo();
        let mut raw = Raw::connect(echo.address());
        raw.send("ping").expect("send");
        assert_eq!(raw.exactly(4).expect("echo"), b"ping");
        assert!(TcpStream::connect(refused()).is_err());
    }
}
