//! One worker's connection to one Redis: made with the first operation, shared by all of them, made anew when it ended.

use super::circuit::Circuit;
use super::{Scripts, ask, meaning};
use crate::config::RedisConfig;
use crate::store::{StoreAnswer, StoreError, StoreOp};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

/// What one operation may take, the making of the connection included.
const OPERATION_MAX: Duration = Duration::from_millis(250);

pub(in crate::store) struct Line {
    config: RedisConfig,
    scripts: Scripts,
    /// Locked while it is being made; who waits for it has a deadline of its own.
    connection: Mutex<Option<Live>>,
    circuit: Circuit,
    /// Failures so far: who sees another number than before knows that what it waited for has failed.
    failures: Cell<u64>,
}

/// A connection whose bytes are moved by a task of its own.
struct Live {
    connection: MultiplexedConnection,
    /// False once the task has ended, as it does when Redis closes.
    alive: Rc<Cell<bool>>,
    task: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Clears its flag when it is dropped.
struct Alive(Rc<Cell<bool>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Why an operation got no answer of Redis's.
struct Broken(Arc<str>);

impl Line {
    pub(in crate::store) fn new(config: RedisConfig) -> Self {
        Self {
            config,
            scripts: Scripts::new(),
            connection: Mutex::new(None),
            circuit: Circuit::default(),
            failures: Cell::new(0),
        }
    }

    /// Carries out `op` on `key`, which has its prefix.
    pub(super) async fn run(
        &self,
        key: &[u8],
        op: &StoreOp<'_>,
    ) -> Result<StoreAnswer, StoreError> {
        self.circuit
            .enter(Instant::now())
            .map_err(StoreError::Unavailable)?;
        match tokio::time::timeout(OPERATION_MAX, self.ask(key, op)).await {
            Ok(Ok(answer)) => {
                if self.circuit.close() {
                    tracing::info!(redis = %self.config, "the store answers again");
                }
                answer
            }
            Ok(Err(Broken(reason))) => {
                self.failed(reason.clone());
                Err(StoreError::Unavailable(reason))
            }
            Err(_) => {
                self.failed("no answer in time".into());
                Err(StoreError::Timeout)
            }
        }
    }

    async fn ask(
        &self,
        key: &[u8],
        op: &StoreOp<'_>,
    ) -> Result<Result<StoreAnswer, StoreError>, Broken> {
        let mut connection = self.connected().await?;
        match ask(&mut connection, &self.scripts, key, op).await {
            Ok(answer) => Ok(answer),
            Err(error) => match meaning(&error) {
                Some(answer) => Ok(Err(answer)),
                None => Err(broken(&error)),
            },
        }
    }

    async fn connected(&self) -> Result<MultiplexedConnection, Broken> {
        let failures = self.failures.get();
        let mut slot = self.connection.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| live.alive.get()) {
            return Ok(live.connection.clone());
        }
        if self.failures.get() != failures {
            return Err(Broken("the connection could not be made".into()));
        }
        *slot = None;
        let live = self.dial().await?;
        let connection = live.connection.clone();
        *slot = Some(live);
        Ok(connection)
    }

    async fn dial(&self) -> Result<Live, Broken> {
        let config = &self.config;
        let refused = |error: std::io::Error| Broken(crate::error::why(&error).into());
        let stream = TcpStream::connect((config.host.as_str(), config.port))
            .await
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let mut info = RedisConnectionInfo::default().set_db(config.db);
        if let Some(user) = &config.user {
            info = info.set_username(user);
        }
        if let Some(password) = &config.password {
            info = info.set_password(password);
        }
        // Operations have a deadline already.
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&info, stream, options).await;
        let (connection, driver) = opened.map_err(|error| broken(&error))?;
        let alive = Rc::new(Cell::new(true));
        let flag = Alive(alive.clone());
        let task = tokio::task::spawn_local(async move {
            let _flag = flag;
            driver.await;
        });
        Ok(Live {
            connection,
            alive,
            task: task.abort_handle(),
        })
    }

    /// Nobody waits for this connection any more.
    fn failed(&self, reason: Arc<str>) {
        self.failures.set(self.failures.get() + 1);
        // Held by somebody who makes another: that is not the one that failed.
        if let Ok(mut slot) = self.connection.try_lock() {
            *slot = None;
        }
        if self.circuit.open(Instant::now(), reason.clone()) {
            tracing::warn!(redis = %self.config, %reason, "the store does not answer: asked again each second");
        }
    }
}

/// Why, without what was sent.
fn broken(error: &RedisError) -> Broken {
    Broken(match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()).into(),
        None => error.to_string().into(),
    })
}
