//! Serving the admin interface: bounded connections, bounded time, and one table of paths.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Process;
use super::answer::{Answer, error};
use super::bind::{Admin, Listener};
use super::routes::ROUTES;
use super::table;
use super::trust::Trust;

/// Connections served at one time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// For a request head, and for how long a connection may lie idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 64 * 1024;
/// For one connection: a reload with slow first checks fits, and a client that never reads its answer does not stay.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(900);
/// After a failed `accept` (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Admin {
    /// Serves until the future is dropped, which closes the socket and removes its file. All of it runs where the
    /// future is polled: give it to the control runtime.
    pub async fn serve(self, process: Rc<dyn Process>) -> io::Result<Infallible> {
        match self.listener {
            Listener::Unix(listener, _removed_at_the_end) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                let accept = async || listener.accept().await.map(|(stream, _)| stream);
                accept_all(accept, Trust::Everyone, &process).await
            }
            Listener::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let accept = async || listener.accept().await.map(|(stream, _)| stream);
                accept_all(accept, Trust::LocalNames, &process).await
            }
        }
    }
}

async fn accept_all<S: AsyncRead + AsyncWrite + Unpin>(
    accept: impl AsyncFn() -> io::Result<S>,
    trust: Trust,
    process: &Rc<dyn Process>,
) -> ! {
    let mut connections = FuturesUnordered::new();
    loop {
        // One of the two is always enabled: a full house is not empty.
        tokio::select! {
            accepted = accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(stream) => connections.push(serve_connection(stream, trust, process)),
                Err(error) => {
                    tracing::warn!(error = crate::error::why(&error), "the admin interface cannot accept connections; trying on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    trust: Trust,
    process: &Rc<dyn Process>,
) {
    let service =
        service_fn(async |request| Ok::<_, Infallible>(answer(request, trust, process).await));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

async fn answer(request: Request<Incoming>, trust: Trust, process: &Rc<dyn Process>) -> Answer {
    let (head, body) = request.into_parts();
    if let Some(objection) = trust.objection(&head.method, &head.headers) {
        return error(StatusCode::FORBIDDEN, objection);
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request body is too large or broken",
            );
        }
        Err(_) => {
            return error(
                StatusCode::REQUEST_TIMEOUT,
                "the request body did not come in time",
            );
        }
    };
    table::answer(ROUTES, process, &head, body).await
}

#[cfg(test)]
mod tests {
    use super::super::{Changed, Readiness, ReloadAnswer};
    use super::*;
    use crate::config::AdminBind;
    use crate::telemetry::Exposition;
    use futures_util::future::LocalBoxFuture;
    use serde_json::json;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Fake {
        readiness: Cell<Readiness>,
        good: bool,
    }

    impl Process for Fake {
        fn readiness(&self) -> Readiness {
            self.readiness.get()
        }
        fn metrics(&self, format: Exposition) -> String {
            match format {
                Exposition::OpenMetrics => "# EOF\n".into(),
                Exposition::Text => "x 1\n".into(),
            }
        }
        fn reload(&self) -> LocalBoxFuture<'static, ReloadAnswer> {
            let answer = match self.good {
                true => ReloadAnswer::done(1, 2, Duration::from_millis(3), Changed::default()),
                false => ReloadAnswer::refused(1, json!([{"line": 3}]), "error: no\n".into()),
            };
            Box::pin(async { answer })
        }
    }

    fn serving<T>(process: Fake, test: impl AsyncFnOnce(std::net::SocketAddr, Rc<Fake>) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let admin = Admin::bind(&AdminBind::Tcp(([127, 0, 0, 1], 0).into())).expect("bind");
            let address = admin.tcp_address().expect("TCP");
            let process = Rc::new(process);
            tokio::select! {
                ended = admin.serve(process.clone()) => panic!("{ended:?}"),
                done = test(address, process.clone()) => done,
            }
        })
    }

    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connect");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    fn request(line: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn process(good: bool) -> Fake {
        Fake {
            readiness: Cell::new(Readiness::Ready),
            good,
        }
    }

    #[test]
    fn the_table_of_paths() {
        serving(process(true), async |address, process| {
            for (line, status, body) in [
                ("GET /ready", 200, "ready\n"),
                ("GET /health", 200, "ok\n"),
                ("GET /metrics", 200, "# EOF\n"),
                ("POST /reload", 200, "\"to\":2"),
                ("GET /reload", 405, "this path takes POST"),
                ("POST /metrics", 405, "GET, HEAD"),
                ("GET /", 200, "POST /reload: 200 or 422"),
                ("GET /other", 404, "\"ok\":false"),
            ] {
                let answer = exchange(address, &request(line)).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{line}: {answer}"
                );
                assert!(answer.contains(body), "{line}: {answer}");
            }
            for readiness in [Readiness::Starting, Readiness::Draining] {
                process.readiness.set(readiness);
                let answer = exchange(address, &request("GET /ready")).await;
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                assert!(answer.contains(readiness.as_str()), "{answer}");
            }
        });
    }

    #[test]
    fn a_refused_reload_says_why() {
        serving(process(false), async |address, _| {
            let answer = exchange(address, &request("POST /reload")).await;
            assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
            assert!(answer.contains("\"line\":3"), "{answer}");
        });
    }

    #[test]
    fn strangers_are_refused() {
        serving(process(true), async |address, _| {
            let rebound = request("GET /metrics").replace("localhost", "evil.example");
            let answer = exchange(address, &rebound).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            let page =
                request("POST /reload").replace("Host:", "Origin: http://evil.example\r\nHost:");
            let answer = exchange(address, &page).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        });
    }

    #[test]
    fn bodies_are_bounded() {
        serving(process(true), async |address, _| {
            let big = BODY_BYTES_MAX + 1;
            let head = request("POST /reload")
                .replace("Content-Length: 0", &format!("Content-Length: {big}"));
            let answer = exchange(address, &(head + &"x".repeat(big))).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        });
    }

    #[test]
    fn more_connections_than_are_served_wait_their_turn() {
        serving(process(true), async |address, _| {
            let mut idle = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                idle.push(
                    tokio::net::TcpStream::connect(address)
                        .await
                        .expect("connect"),
                );
            }
            let health = request("GET /health");
            let late = exchange(address, &health);
            let close = async { drop(idle) };
            let (answer, ()) = tokio::join!(late, close);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }
}
