//! Calls and effects against backends on loopback.

use super::call::{CallError, CallRequest, CallResponse, Caller};
use super::client_origin::Origin;
use super::effects::{EFFECTS_MAX, Effect, EffectResult, Effects, SLEEP_MAX, perform};
use super::exchange::{call, make_call};
use crate::config::{self, Environment, Input, StoreConfig};
use crate::connection::Connection;
use crate::generation::{Generation, Listener, Service, Worker};
use crate::head::Fields;
use crate::store::{Handle, Store, StoreAnswer, StoreOp};
use crate::telemetry::Metrics;
use crate::upstream::{Pool, Registry};
use bytes::Bytes;
use smallvec::smallvec;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

/// A backend that answers each request with the next of its answers and then says nothing more.
struct Backend {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    /// The requests that came.
    heard: Rc<RefCell<Vec<String>>>,
}

impl Backend {
    async fn start(answers: &[&'static str]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Self {
            address: socket.local_addr().unwrap(),
            connections: Rc::default(),
            heard: Rc::default(),
        };
        let answers = Rc::new(RefCell::new(Vec::from(answers).into_iter()));
        let (connections, heard) = (backend.connections.clone(), backend.heard.clone());
        spawn_local(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                connections.set(connections.get() + 1);
                let (answers, heard) = (answers.clone(), heard.clone());
                spawn_local(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        if !is_whole(&text) {
                            continue;
                        }
                        heard.borrow_mut().push(text);
                        bytes.clear();
                        let answer = answers.borrow_mut().next();
                        if let Some(answer) = answer {
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        backend
    }
}

/// The request has come with its body.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |n| n.parse().unwrap())
}

/// A worker's service with one pool.
struct Bench {
    service: Rc<Service>,
    connection: Rc<Connection>,
    pool: Arc<Pool>,
    store: Handle,
    metrics: Metrics,
}

impl Bench {
    fn new(endpoints: &[SocketAddr], options: &str) -> Self {
        let text = format!(
            "pools: {{p: {{endpoints: {:?}, {options}}}}}\n\
             listeners: [{{name: l, bind: '127.0.0.1:1', protocol: http, pool: p}}]\n",
            endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        );
        let env = Environment {
            vars: &|_| None,
            builtins: Vec::new(),
            cwd: "/".into(),
            processors: 1,
        };
        let input = Input::Text {
            name: "test".into(),
            text,
        };
        let config = config::load(&[input], &env)
            .expect("a configuration")
            .config;
        let pool = Pool::from_config(&config.pools[0], None, &Registry::new());
        let metrics = Metrics::new("0");
        let listener = Arc::new(Listener {
            config: config.listeners[0].clone(),
            tls: None,
        });
        let worker = Rc::new(Worker::new(None));
        let memory = StoreConfig::Memory { bytes: 1 << 20 };
        let store = worker.stores.handle(&Store::open("f", &memory, None));
        let service = Rc::new(Service {
            generation: Arc::new(Generation {
                number: 1,
                config: Arc::new(config),
                pools: vec![pool.clone()],
                members: Vec::new(),
                listeners: vec![listener.clone()],
            }),
            listener,
            chain: Default::default(),
            stores: Box::default(),
            behind: None,
            metrics: Rc::new(metrics.listener("l")),
            worker,
        });
        let peer = "192.0.2.1:1".parse().unwrap();
        Self {
            service,
            connection: Rc::new(Connection::new("l".into(), peer, peer)),
            pool,
            store,
            metrics,
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            service: &self.service,
            connection: &self.connection,
            client: self.connection.peer.ip(),
            origin: Origin::of_connection(&self.connection),
            make: make_call,
        }
    }

    async fn call(&self, request: CallRequest) -> Result<CallResponse, CallError> {
        call(&self.caller(), &self.pool, request).await
    }

    async fn perform(&self, effects: Effects<'_>) -> Vec<EffectResult> {
        perform(&self.caller(), &self.store, effects).await.to_vec()
    }
}

fn test(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work);
}

fn get(target: &'static str) -> CallRequest {
    CallRequest {
        target: Bytes::from_static(target.as_bytes()),
        ..CallRequest::default()
    }
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.append(name.as_bytes(), value.as_bytes());
    }
    fields
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_call_is_answered_and_its_connection_is_kept() {
    test(async {
        let chunked = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\n\
                       X-Hop: 1\r\nX-Kept: 2\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 3\r\n\r\n";
        let backend = Backend::start(&["HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK]).await;
        let bench = Bench::new(&[backend.address], "");
        // What only informs is not the answer; the answer does not come.
        let mut hinted = get("/hint");
        hinted.timeout = Duration::from_millis(100);
        assert_eq!(bench.call(hinted).await.err(), Some(CallError::Timeout));

        let backend = Backend::start(&[chunked, OK]).await;
        let bench = Bench::new(&[backend.address], "");
        let mut request = get("/a?b");
        request.method = Bytes::from_static(b"POST");
        request.authority = Bytes::from_static(b"example.org");
        request.body = Bytes::from_static(b"body");
        request.fields = fields(&[
            ("x-own", "1"),
            ("connection", "x-named"),
            ("x-named", "2"),
            ("host", "other"),
            ("content-length", "99"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
        ]);
        let response = bench.call(request).await.unwrap();
        assert_eq!((response.status, &*response.body), (201, &b"abcde"[..]));
        let lines: Vec<_> = response.fields.iter().collect();
        assert_eq!(lines, [(&b"x-kept"[..], &b"2"[..])]);
        let response = bench.call(get("/")).await.unwrap();
        assert_eq!((response.status, &*response.body), (200, &b"ok"[..]));
        assert_eq!(
            *backend.heard.borrow(),
            [
                "POST /a?b HTTP/1.1\r\nhost: example.org\r\nx-own: 1\r\ncontent-length: 4\r\n\r\nbody"
                    .to_owned(),
                format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", backend.address),
            ]
        );
        assert_eq!(backend.connections.get(), 1);
        // It counts for the pool, and for no listener.
        let endpoint = &bench.pool.members()[0].endpoint;
        assert_eq!((endpoint.picks(), endpoint.active()), (2, 0));
        let text = bench.metrics.expose();
        assert!(text.contains("sluicegate_requests_total{listener=\"l\",code=\"2xx\"} 0"));
        assert!(text.contains("sluicegate_exchanges_active{listener=\"l\"} 0"));
    });
}

#[test]
fn calls_share_a_connection_of_http2() {
    test(async {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bench = Bench::new(&[socket.local_addr().unwrap()], "protocol: http2");
        let connections = Rc::new(Cell::new(0));
        let counted = connections.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = socket.accept().await {
                counted.set(counted.get() + 1);
                let mut streams = h2::server::handshake(stream).await.unwrap();
                spawn_local(async move {
                    while let Some(Ok((request, mut respond))) = streams.accept().await {
                        let path = request.uri().path().to_owned();
                        let mut body = respond.send_response(Default::default(), false).unwrap();
                        body.send_data(path.into(), true).unwrap();
                    }
                });
            }
        });
        let answers = futures_util::future::join(bench.call(get("/a")), bench.call(get("/b")));
        let (a, b) = answers.await;
        assert_eq!(
            (&*a.unwrap().body, &*b.unwrap().body),
            (&b"/a"[..], &b"/b"[..])
        );
        assert_eq!(bench.call(get("/c")).await.unwrap().status, 200);
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn another_endpoint_is_tried_as_the_pool_says() {
    test(async {
        let gone = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let backend = Backend::start(&[OK, OK]).await;
        let bench = Bench::new(&[gone, backend.address], "");
        for _ in 0..2 {
            assert_eq!(bench.call(get("/")).await.unwrap().status, 200);
        }
        let bench = Bench::new(&[gone], "");
        assert_eq!(bench.call(get("/")).await.err(), Some(CallError::Refused));
    });
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let answered = |answer: &'static str| async move {
        let backend = Backend::start(&[answer]).await;
        let bench = Bench::new(&[backend.address], "retries: 0");
        let mut request = get("/");
        request.timeout = Duration::from_millis(300);
        request.response_bytes_max = 4;
        let response = bench.call(request).await;
        assert_eq!(bench.pool.members()[0].endpoint.active(), 0);
        response.map(|response| response.body)
    };
    test(async {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
                Ok("four"),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok("")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfives",
                Err(CallError::TooLarge),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfives\r\n0\r\n\r\n",
                Err(CallError::TooLarge),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfo",
                Err(CallError::Timeout),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nfour",
                Err(CallError::Malformed),
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
                Err(CallError::Malformed),
            ),
            ("", Err(CallError::Timeout)),
        ];
        for (answer, expected) in cases {
            let expected = expected.map(|text: &str| Bytes::from_static(text.as_bytes()));
            assert_eq!(answered(answer).await, expected, "{answer}");
        }
    });
}

#[test]
fn what_is_no_request_is_not_sent() {
    test(async {
        let backend = Backend::start(&[]).await;
        let bench = Bench::new(&[backend.address], "");
        let wrong: [fn(&mut CallRequest); 8] = [
            |r| r.method = Bytes::from_static(b"CONNECT"),
            |r| r.method = Bytes::from_static(b"G T"),
            |r| r.target = Bytes::from_static(b"/ HTTP/1.1\r\nx: y"),
            |r| r.authority = Bytes::from_static(b"a b"),
            |r| r.fields.append(b"x", b"1\r\ny: 2"),
            |r| r.fields.append(b"X-Upper", b"1"),
            |r| r.timeout = Duration::from_secs(61),
            |r| r.response_bytes_max = (16 << 20) + 1,
        ];
        for spoil in wrong {
            let mut request = get("/");
            spoil(&mut request);
            assert_eq!(bench.call(request).await.err(), Some(CallError::Invalid));
        }
        assert_eq!(backend.connections.get(), 0);
    });
}

#[test]
fn a_call_that_is_dropped_leaves_nothing_behind() {
    test(async {
        let backend = Backend::start(&[]).await;
        let bench = Bench::new(&[backend.address], "");
        let mut request = get("/");
        request.timeout = Duration::from_secs(60);
        let endpoint = bench.pool.members()[0].endpoint.clone();
        let waited = tokio::time::timeout(Duration::from_millis(100), bench.call(request)).await;
        assert!(waited.is_err());
        assert_eq!(backend.heard.borrow().len(), 1);
        assert_eq!(endpoint.active(), 0);
    });
}

#[test]
fn effects_run_at_the_same_time_and_answer_in_order() {
    test(async {
        let backend = Backend::start(&[OK, OK]).await;
        let bench = Bench::new(&[backend.address], "");
        let call = || Effect::Call {
            pool: bench.pool.clone(),
            request: Box::new(get("/")),
        };
        let nap = Duration::from_millis(200);
        let began = Instant::now();
        let key = b"k";
        let effects: Effects<'_> = smallvec![
            Effect::Sleep(nap),
            call(),
            Effect::Store(StoreOp::Increment {
                key,
                delta: 1,
                ttl: None
            }),
            call(),
            Effect::Sleep(nap),
            Effect::Store(StoreOp::Increment {
                key,
                delta: 1,
                ttl: None
            }),
            Effect::Sleep(SLEEP_MAX + nap),
        ];
        let results = bench.perform(effects).await;
        let took = began.elapsed();
        assert!(took >= nap && took < 2 * nap, "{took:?}");
        let said: Vec<_> = results
            .iter()
            .map(|result| match result {
                EffectResult::Store(Ok(StoreAnswer::Number(n))) => n.to_string(),
                EffectResult::Call(Ok(response)) => response.status.to_string(),
                EffectResult::Slept => "slept".to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(said, ["slept", "200", "1", "200", "slept", "2", "Refused"]);
        // As many as may be, and one more.
        let naps = std::iter::repeat_n(Effect::Sleep(nap), EFFECTS_MAX + 1).collect();
        let results = bench.perform(naps).await;
        assert!(matches!(results[EFFECTS_MAX - 1], EffectResult::Slept));
        assert!(matches!(results[EFFECTS_MAX], EffectResult::Refused));
    });
}

#[test]
fn what_needs_no_waiting_is_done_in_the_first_poll() {
    test(async {
        let bench = Bench::new(&["127.0.0.1:1".parse().unwrap()], "");
        let key = b"k";
        let value = b"v";
        let effects: Effects<'_> = smallvec![
            Effect::Store(StoreOp::Set {
                key,
                value,
                ttl: None
            }),
            Effect::Sleep(Duration::ZERO),
            Effect::Store(StoreOp::Get { key }),
        ];
        let caller = bench.caller();
        let mut work = std::pin::pin!(perform(&caller, &bench.store, effects));
        let Poll::Ready(results) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits");
        };
        let EffectResult::Store(Ok(StoreAnswer::Value(found))) = &results[2] else {
            panic!("{results:?}");
        };
        assert_eq!(**found, *value);
    });
}
