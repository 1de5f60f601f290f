//! The control thread: starts the workers, then waits for signals, changed files and the admin interface, and turns
//! them into reloads and, once, into the drain that ends the process.

use super::access_log::Records;
use super::build::Builder;
use super::checks::PoolChecks;
use super::descriptors;
use super::drain::Signals;
use super::follower::Refused;
use super::reload::{warn, warnings};
use super::restart::Restart;
use super::run_error::RunError;
use super::samples::Scrape;
use super::server::{Followers, Ready, Server};
use super::sockets::Sockets;
use super::state::State;
use super::watch::Watch;
use super::workers::Workers;
use crate::admin::{self, Readiness};
use crate::config::{ConfigPath, Problem};
use crate::telemetry::Metrics;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Told once what serves.
pub type OnReady = Box<dyn FnOnce(&Ready)>;

/// How the server is run.
pub struct RunOptions {
    /// Reload when a file of the configuration changes.
    pub watch: bool,
    /// Called once, when the first generation serves.
    pub on_ready: Option<OnReady>,
    /// Ends the process in order, like SIGTERM. For callers that run the server inside their own process.
    pub stop: Option<oneshot::Receiver<()>>,
}

/// Runs the server until it is told to stop. Blocks the calling thread, which becomes control.
pub fn run(builder: Builder, options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, serve(builder, options));
    drop(local);
    // Name look-ups and compilations that still run need not be waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(mut builder: Builder, options: RunOptions) -> Result<(), RunError> {
    let started = Instant::now();
    let build = builder.build(None).map_err(RunError::Config)?;
    warn(&warnings(&build));
    let config = build.generation.config.clone();
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let (reloads, mut reload_requests) = mpsc::unbounded_channel();
    let state = Rc::new(State {
        readiness: Cell::new(Readiness::Starting),
        metrics: metrics.clone(),
        reloads,
    });
    // The admin interface comes first: that its address is free shows that no other server runs on this configuration.
    let admin = match &config.admin.bind {
        Some(bind) => {
            let admin = admin::Admin::bind(bind).map_err(|error| {
                let problem = Problem {
                    at: ConfigPath("/admin/bind".to_owned()),
                    code: "admin-unusable",
                    message: error.to_string(),
                    help: Some(error.help().to_owned()),
                };
                RunError::refused(&build.sources, Refused::Placed(problem))
            })?;
            let state = state.clone();
            Some(tokio::task::spawn_local(async move {
                let Err(error) = admin.serve(state).await;
                tracing::error!(%error, "the admin interface ended");
            }))
        }
        None => None,
    };
    let (changed, mut changes) = mpsc::unbounded_channel();
    let watch = if options.watch {
        Some(Watch::start(changed)?)
    } else {
        None
    };

    let mut server = Server {
        builder: Arc::new(Mutex::new(builder)),
        metrics: metrics.clone(),
        generation: None,
        followers: Followers {
            restart: Restart,
            records: Records::new(metrics.clone()),
            sockets: Sockets::default(),
            workers: Workers::start(config.workers, &metrics)?,
            checks: PoolChecks::new(),
            watch,
            scrape: Scrape::new(metrics),
        },
        state: state.clone(),
    };
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut replace = signal(SignalKind::user_defined2())?;
    server.put_to_work(build).await?;
    state.readiness.set(Readiness::Ready);
    if let Some(watch) = &server.followers.watch {
        watch.tell();
    }
    descriptors::warn(&config);
    let ready = server.ready();
    for (name, addresses) in &ready.listeners {
        for address in addresses {
            tracing::info!(listener = &**name, %address, "listening");
        }
    }
    tracing::info!(
        workers = config.workers,
        took_ms = started.elapsed().as_millis() as u64,
        "serving"
    );
    if let Some(on_ready) = options.on_ready {
        on_ready(&ready);
    }

    let mut stop = options.stop;
    loop {
        tokio::select! {
            _ = signals.end() => break,
            _ = stopped(&mut stop) => break,
            _ = hangup.recv() => { server.reload("SIGHUP").await; }
            _ = reopen.recv() => {
                server.followers.records.reopen();
            }
            _ = replace.recv() => {
                // Its default action would end the process with every connection.
                tracing::warn!("SIGUSR2 is ignored: this version cannot hand its sockets to a new program; start that one after this one has drained");
            }
            Some(()) = changes.recv() => {
                while changes.try_recv().is_ok() {}
                if server.followers.watch.as_mut().is_some_and(Watch::has_changed) {
                    server.reload("a file changed").await;
                }
            }
            Some(reply) = reload_requests.recv() => {
                let answer = server.reload("asked for").await;
                let _ = reply.send(answer);
            }
        }
    }
    // Who asks for a reload from now on, or has asked and not been heard, is told that there will be none.
    drop(reload_requests);
    server.drain(&mut signals).await;
    if let Some(admin) = admin {
        admin.abort();
    }
    Ok(())
}

/// Never ready when nobody can ask.
async fn stopped(stop: &mut Option<oneshot::Receiver<()>>) {
    match stop {
        Some(stop) => {
            let _ = stop.await;
        }
        None => std::future::pending().await,
    }
}
