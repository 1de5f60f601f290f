//! The store in Redis, against a server that the test starts.

use super::super::stores::{Connections, Handle, Store};
use super::super::{StoreAnswer, StoreError};
use super::cases::{add, cases, get, set, value};
use crate::config::{RedisConfig, StoreConfig};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const PASSWORD: &str = "not-to-be-told";
const DEADLINE: Duration = Duration::from_secs(10);

/// A Redis of the test's own. Ends with it.
struct Server {
    port: u16,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        // Free a moment ago: somebody else may have taken it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            if let Some(server) = Self::at(port.unwrap().port()) {
                return server;
            }
        }
        panic!("no redis-server came up: is it installed? (make setup)");
    }

    fn at(port: u16) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                PASSWORD,
                "--port",
            ])
            .arg(port.to_string())
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: make setup");
        let mut server = Self {
            port,
            process,
            _dir: dir,
        };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            std::thread::yield_now();
        }
        Some(server)
    }

    fn config(&self) -> RedisConfig {
        RedisConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            user: None,
            password: Some(PASSWORD.into()),
            db: 3,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn handle(namespace: &str, config: RedisConfig) -> Handle {
    let store = Store::open(namespace, &StoreConfig::Redis(config), None);
    Connections::default().handle(&store)
}

async fn on_worker<F: Future>(work: F) -> F::Output {
    LocalSet::new().run_until(work).await
}

#[tokio::test]
async fn answers_like_every_store() {
    let server = Server::start();
    let work = async {
        let handle = handle("f", server.config());
        for (op, expected) in cases() {
            assert_eq!(handle.run(&op).await, expected, "{:?}", op.key());
        }
    };
    on_worker(work).await;
}

#[tokio::test]
async fn keys_expire_and_namespaces_do_not_meet() {
    let server = Server::start();
    let work = async {
        let (a, b) = (handle("a", server.config()), handle("a:b", server.config()));
        let soon = Some(Duration::from_millis(300));
        a.run(&add("b:n", 1, soon)).await.unwrap();
        assert_eq!(b.run(&get("n")).await, Ok(StoreAnswer::Absent));
        a.run(&add("b:n", 1, Some(DEADLINE * 100))).await.unwrap();
        a.run(&set("v", "x", soon)).await.unwrap();
        let deadline = Instant::now() + DEADLINE;
        for key in ["b:n", "v"] {
            while a.run(&get(key)).await != Ok(StoreAnswer::Absent) {
                assert!(Instant::now() < deadline, "{key} does not expire");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    on_worker(work).await;
}

#[tokio::test]
async fn a_restart_is_survived_and_an_outage_is_told_at_once() {
    let server = Server::start();
    let work = async {
        let config = server.config();
        let port = server.port;
        let handle = handle("f", config);
        handle.run(&set("a", "1", None)).await.unwrap();
        drop(server);
        // Its end is noticed by the connection's task, or by the first operation.
        let refused = handle.run(&get("a")).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        let began = Instant::now();
        for _ in 0..1000 {
            let refused = handle.run(&get("a")).await;
            assert!(
                matches!(refused, Err(StoreError::Unavailable(_))),
                "{refused:?}"
            );
        }
        assert!(began.elapsed() < Duration::from_millis(500));
        let _server = Server::at(port).expect("its port is free again");
        let deadline = Instant::now() + DEADLINE;
        while handle.run(&set("a", "2", None)).await.is_err() {
            assert!(Instant::now() < deadline, "it is not asked again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(handle.run(&get("a")).await, value("2"));
    };
    on_worker(work).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let work = async {
        let handle = handle(
            "f",
            RedisConfig {
                host: "127.0.0.1".into(),
                port: silent.local_addr().unwrap().port(),
                user: None,
                password: Some(PASSWORD.into()),
                db: 0,
            },
        );
        let began = Instant::now();
        let waits = (0..50).map(|_| async { handle.run(&get("a")).await });
        for waited in futures_util::future::join_all(waits).await {
            let told = matches!(
                waited,
                Err(StoreError::Timeout | StoreError::Unavailable(_))
            );
            assert!(told, "{waited:?}");
        }
        assert!(began.elapsed() < Duration::from_millis(900));
        let began = Instant::now();
        let refused = handle.run(&get("a")).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        assert!(began.elapsed() < Duration::from_millis(100));
    };
    on_worker(work).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let server = Server::start();
    let work = async {
        let mut config = server.config();
        config.password = Some("also-not-to-be-told".into());
        let handle = handle("f", config);
        let Err(StoreError::Unavailable(why)) = handle.run(&get("a")).await else {
            panic!("it is let in");
        };
        assert!(why.contains("authentication failed"), "{why}");
        assert!(!why.contains("not-to-be-told"), "{why}");
    };
    on_worker(work).await;
}
