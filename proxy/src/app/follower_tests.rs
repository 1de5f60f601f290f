//! A follower that refuses, in each place and in each round: nothing else has moved.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc;

use super::access_log::Records;
use super::build::{Build, Builder};
use super::checks::PoolChecks;
use super::follower::{Follower, Next, Refused, advance};
use super::origin::Named;
use super::restart::Restart;
use super::samples::Scrape;
use super::server::{Followers, Server};
use super::sockets::Sockets;
use super::state::State;
use super::watch::Watch;
use super::workers::Workers;
use crate::admin::Readiness;
use crate::config::Input;
use crate::telemetry::Metrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Prepare,
    Commit,
}

/// Refuses in one round, and counts what it is asked.
struct Refuses {
    round: Round,
    undone: usize,
    settled: usize,
}

fn refused() -> Result<(), Refused> {
    Err(Refused::System(anyhow::anyhow!("not this one")))
}

impl Follower for Refuses {
    fn prepare(&mut self, _: &mut Next) -> Result<(), Refused> {
        match self.round {
            Round::Prepare => refused(),
            Round::Commit => Ok(()),
        }
    }

    fn commit<'a>(&'a mut self, _: &'a mut Next) -> LocalBoxFuture<'a, Result<(), Refused>> {
        Box::pin(std::future::ready(refused()))
    }

    fn undo<'a>(&'a mut self, _: &'a mut Next) -> LocalBoxFuture<'a, ()> {
        self.undone += 1;
        Box::pin(std::future::ready(()))
    }

    fn settle<'a>(&'a mut self, _: &'a Next) -> LocalBoxFuture<'a, ()> {
        self.settled += 1;
        Box::pin(std::future::ready(()))
    }
}

/// A configuration by its name: everything that follows differs from one to the other.
fn text(name: &str, folder: &Path, own: SocketAddr) -> String {
    let log = folder.join(format!("{name}.log"));
    format!(
        "workers: 1\nadmin: off\n\
         pools: {{{name}: {{endpoints: [\"127.0.0.1:9\"], retries: 0}}}}\n\
         listeners:\n  - {{name: both, bind: \"127.0.0.1:0\", protocol: http, pool: {name}, via: {name}}}\n  \
         - {{name: {name}, bind: \"{own}\", protocol: http, pool: {name}, via: {name}}}\n\
         telemetry: {{access-log: {{to: \"{}\", format: json}}}}\n",
        log.display()
    )
}

/// An address that nobody listens on.
fn free() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

/// Who answers at `address`.
fn asked(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .write_all(b"GET /asked HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    // Nobody serves the pool, and the proxy says so in its own name.
    let status = answer
        .lines()
        .find_map(|line| line.strip_prefix("proxy-status: "));
    let name = status.expect("a Proxy-Status").split(';').next();
    Some(name.unwrap_or_default().to_owned())
}

fn build(server: &Server, name: &str, folder: &Path, own: SocketAddr) -> Build {
    let mut builder = server.builder.lock().expect("the builder");
    builder.origins = vec![Box::new(Named::new(vec![Input::Text {
        name: name.into(),
        text: text(name, folder, own),
    }]))];
    let built = builder.build(server.generation.as_ref());
    built.unwrap_or_else(|error| panic!("{:?}", error.diagnostics))
}

fn server(folder: &Path) -> Server {
    let metrics = Arc::new(Metrics::new("0"));
    let builder = Builder::new(Vec::new(), Box::new(|_| None), folder.to_owned());
    let (changed, _) = mpsc::unbounded_channel();
    let (reloads, _) = mpsc::unbounded_channel();
    Server {
        builder: Arc::new(Mutex::new(builder)),
        metrics: metrics.clone(),
        generation: None,
        followers: Followers {
            restart: Restart,
            records: Records::new(metrics.clone()),
            sockets: Sockets::default(),
            workers: Workers::start(1, &metrics).expect("a thread"),
            checks: PoolChecks::new(),
            watch: Some(Watch::start(changed).expect("inotify")),
            scrape: Scrape::new(metrics.clone()),
        },
        state: Rc::new(State {
            readiness: std::cell::Cell::new(Readiness::Ready),
            metrics,
            reloads,
        }),
    }
}

/// What is to be seen of `name`, and nothing of the `other`.
fn serves(
    server: &Server,
    folder: &Path,
    (name, own): (&str, SocketAddr),
    other: (&str, SocketAddr),
) {
    let ready = server.ready();
    let both = ready.listeners.iter().find(|(n, _)| &**n == "both");
    let address = both.expect("the listener of both").1[0];
    let log = |name: &str| {
        let text = std::fs::read_to_string(folder.join(format!("{name}.log")));
        text.unwrap_or_default().lines().count()
    };
    let (before, others) = (log(name), log(other.0));
    assert_eq!(asked(address).as_deref(), Some(name));
    assert_eq!(asked(own).as_deref(), Some(name));
    assert_eq!(asked(other.1), None, "nobody listens for {}", other.0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while log(name) < before + 2 {
        assert!(std::time::Instant::now() < deadline, "records of {name}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(log(other.0), others, "records of {}", other.0);
    let pools = &server.generation.as_ref().expect("one serves").pools;
    assert_eq!(server.followers.checks.pools().collect::<Vec<_>>(), [name]);
    assert_eq!(&*pools[0].config.name, name);
    let metrics = server.metrics.expose();
    let number = format!("sluicegate_config_generation {}", server.number());
    assert!(metrics.contains(&number), "{metrics}");
    assert!(metrics.contains(&format!("pool=\"{name}\"")), "{metrics}");
    assert!(
        !metrics.contains(&format!("pool=\"{}\"", other.0)),
        "{metrics}"
    );
}

#[tokio::test]
async fn whoever_refuses_wherever_it_stands_nothing_has_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (a, b) = (("a", free()), ("b", free()));
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut server = server(folder);
            let first = build(&server, a.0, folder, a.1);
            assert!(server.put_to_work(first).await.is_ok());
            serves(&server, folder, a, b);
            let places = server.followers.list().len();
            for round in [Round::Prepare, Round::Commit] {
                for place in 0..=places {
                    let next = build(&server, b.0, folder, b.1);
                    let mut refuses = Refuses {
                        round,
                        undone: 0,
                        settled: 0,
                    };
                    let mut list = server.followers.list();
                    list.insert(place, &mut refuses);
                    let present = server.generation.clone();
                    let mut next = Next::new(next.generation, present, next.watched);
                    let moved = advance(&mut list, &mut next).await;
                    assert!(moved.is_err(), "{round:?} at {place}");
                    drop(next);
                    assert_eq!(refuses.undone, usize::from(round == Round::Commit));
                    assert_eq!(refuses.settled, 0);
                    serves(&server, folder, a, b);
                }
            }
            let next = build(&server, b.0, folder, b.1);
            assert!(server.put_to_work(next).await.is_ok());
            serves(&server, folder, b, a);
            server.followers.workers.cut();
        })
        .await;
}
