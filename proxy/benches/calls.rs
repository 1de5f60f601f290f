//! Processor time of a call for a filter, beside that of an exchange and of asking the backend without a proxy. Backend,
//! client and proxy share one thread, so that all of it is counted; the last of the three is in each of the others.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use sluicegate::config::{self, Environment, Input};
use sluicegate::connection::Connection;
use sluicegate::generation::{Generation, Listener, Service, ServiceSlot, Worker};
use sluicegate::io::Io;
use sluicegate::protocol::http::call::{CallRequest, Caller};
use sluicegate::protocol::http::client_origin::Origin;
use sluicegate::protocol::http::exchange::{call, make_call};
use sluicegate::protocol::{self, Arrived};
use sluicegate::telemetry::Metrics;
use sluicegate::upstream::{Pool, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers whatever comes in one read.
async fn backend() -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("its address");
    spawn_local(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            spawn_local(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    if stream.write_all(RESPONSE).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn service(backend: std::net::SocketAddr) -> (Rc<Service>, Arc<Pool>) {
    let text = format!(
        "pools: {{p: {{endpoints: ['{backend}']}}}}\n\
         listeners: [{{name: l, bind: '127.0.0.1:1', protocol: http, pool: p}}]\n"
    );
    let env = Environment {
        vars: &|_| None,
        builtins: Vec::new(),
        cwd: "/".into(),
        processors: 1,
    };
    let name = "bench".into();
    let loaded = config::load(&[Input::Text { name, text }], &env);
    let config = loaded.expect("a configuration").config;
    let pool = Pool::from_config(&config.pools[0], None, &Registry::new());
    let listener = Arc::new(Listener {
        config: config.listeners[0].clone(),
        tls: None,
    });
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
        metrics: Rc::new(Metrics::new("0").listener("l")),
        worker: Rc::new(Worker::new(None)),
    });
    (service, pool)
}

fn connection() -> Rc<Connection> {
    let peer = "127.0.0.1:1".parse().expect("an address");
    Rc::new(Connection::new("l".into(), peer, peer))
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).await.expect("it listens");
    let mut buffer = [0; 4096];
    let mut whole = Vec::new();
    while !whole.ends_with(b"\r\n\r\nok") {
        let n = stream.read(&mut buffer).await.expect("it answers");
        assert!(n > 0, "it closed");
        whole.extend_from_slice(&buffer[..n]);
    }
}

/// Processor time of this thread.
fn spent() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let tasks = LocalSet::new();
    let address = tasks.block_on(&runtime, backend());
    let (service, pool) = service(address);
    let connection = connection();

    c.bench_function("request/without-proxy", |b| {
        b.iter_custom(|times| {
            tasks.block_on(&runtime, async {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                let began = spent();
                for _ in 0..times {
                    ask(&mut stream).await;
                }
                spent() - began
            })
        })
    });
    c.bench_function("request/call", |b| {
        b.iter_custom(|times| {
            tasks.block_on(&runtime, async {
                let caller = Caller {
                    service: &service,
                    connection: &connection,
                    client: connection.peer.ip(),
                    origin: Origin::of_connection(&connection),
                    make: make_call,
                };
                let began = spent();
                for _ in 0..times {
                    let response = call(&caller, &pool, CallRequest::default()).await;
                    assert_eq!(response.expect("an answer").status, 200);
                }
                spent() - began
            })
        })
    });
    c.bench_function("request/exchange", |b| {
        b.iter_custom(|times| {
            tasks.block_on(&runtime, async {
                let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = front.local_addr().expect("its address");
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                let (accepted, _) = front.accept().await.expect("it came");
                let slot = Rc::new(ServiceSlot::new(service.clone()));
                let arrived = Arrived::Stream(connection.clone(), Io::Tcp(accepted));
                let protocol = protocol::of(&service.listener.config);
                let serving = spawn_local(protocol.serve(slot, arrived));
                let began = spent();
                for _ in 0..times {
                    ask(&mut stream).await;
                }
                let took = spent() - began;
                serving.abort();
                took
            })
        })
    });
}

criterion_group!(benches, calls);
criterion_main!(benches);
