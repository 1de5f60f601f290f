//! The control thread: starts the workers, then waits for signals, changed files and the admin interface, and turns
//! them into reloads and, once, into the drain that ends the process.

use super::build::{Build, BuildError, Builder, Changes};
use super::descriptors;
use super::samples::ScrapeView;
use super::sockets::Sockets;
use super::watch::Watch;
use super::worker::{self, Command};
use crate::admin::{self, Changed, Readiness, ReloadAnswer};
use crate::config::{AccessLogConfig, ConfigPath, LogTarget, Problem, Sources, quoted, render};
use crate::discovery::{Resolve, SystemResolver};
use crate::error::why;
use crate::generation::Generation;
use crate::telemetry::{AccessLog, Exposition, Metrics, WorkerLog};
use crate::upstream::{Checks, Pool};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
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

/// What serves.
pub struct Ready {
    /// Listener names with the addresses they are bound to; real ports.
    pub listeners: Vec<(Arc<str>, Vec<SocketAddr>)>,
}

/// Why the server did not run.
pub enum RunError {
    /// The configuration is wrong: exit 78.
    Config(Box<BuildError>),
    /// Something of the system does not allow what the configuration says at a place that is known: exit 1.
    Placed(Box<BuildError>),
    /// Something of the system is wrong: exit 1.
    System(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for RunError {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

impl RunError {
    fn placed(sources: &Sources, problem: Problem) -> Self {
        let written = sources.node(&problem.at).is_some();
        let mut diagnostic = sources.diagnose(problem);
        if !written {
            // A default is to blame: it stands nowhere.
            diagnostic.at = None;
        }
        RunError::Placed(Box::new(BuildError {
            diagnostics: vec![diagnostic],
            sources: sources.clone(),
            watched: Vec::new(),
        }))
    }
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

/// The access log with the configuration it was opened by, if there is one.
type OpenLog = Option<(AccessLogConfig, AccessLog)>;

/// What control knows while the server runs.
struct Server {
    builder: Arc<Mutex<Builder>>,
    metrics: Arc<Metrics>,
    workers: Vec<worker::Handle>,
    generation: Arc<Generation>,
    /// The same, for the metrics, which are read at any time.
    samples: Arc<ScrapeView>,
    sockets: Sockets,
    access_log: OpenLog,
    /// The checks of the pools that serve; they stop when their guard is dropped.
    checks: Vec<(Arc<Pool>, Checks)>,
    resolver: Arc<dyn Resolve>,
    state: Rc<State>,
    watch: Option<Watch>,
}

/// What the admin interface may look at and ask for.
struct State {
    readiness: Cell<Readiness>,
    metrics: Arc<Metrics>,
    reloads: mpsc::UnboundedSender<oneshot::Sender<ReloadAnswer>>,
}

impl admin::Process for State {
    fn readiness(&self) -> Readiness {
        self.readiness.get()
    }

    fn metrics(&self, format: Exposition) -> String {
        self.metrics.expose_as(format)
    }

    fn reload(&self) -> futures_util::future::LocalBoxFuture<'static, ReloadAnswer> {
        let (reply, answer) = oneshot::channel();
        let asked = self.reloads.send(reply).is_ok();
        Box::pin(async move {
            let ending =
                || ReloadAnswer::refused(0, serde_json::json!([]), "the server is ending\n".into());
            if !asked {
                return ending();
            }
            answer.await.unwrap_or_else(|_| ending())
        })
    }
}

async fn serve(mut builder: Builder, options: RunOptions) -> Result<(), RunError> {
    let started = Instant::now();
    let build = builder.build(None).map_err(RunError::Config)?;
    warn(&warnings(&build));
    let config = build.generation.config.clone();
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let access_log = match &config.telemetry.access_log {
        Some(log) => match AccessLog::open(log, metrics.access_log_dropped()) {
            Ok(opened) => Some((log.clone(), opened)),
            Err(error) => {
                let problem = unopened_log(log, &error);
                return Err(RunError::placed(&build.sources, problem));
            }
        },
        None => None,
    };
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
                RunError::placed(&build.sources, problem)
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
        workers: Vec::with_capacity(config.workers),
        generation: build.generation.clone(),
        samples: ScrapeView::register(&metrics, build.generation.clone()),
        sockets: Sockets::default(),
        access_log,
        checks: Vec::new(),
        resolver: Arc::new(SystemResolver::new()),
        state: state.clone(),
        watch,
    };
    for index in 0..config.workers {
        let log = server.access_log.as_ref().map(|(_, log)| log.worker());
        server
            .workers
            .push(worker::start(index, metrics.clone(), log)?);
    }
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut replace = signal(SignalKind::user_defined2())?;
    server.put_to_work(build, None).await?;
    state.readiness.set(Readiness::Ready);
    if let Some(watch) = &server.watch {
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
                if let Some((_, log)) = &server.access_log {
                    log.reopen();
                }
            }
            _ = replace.recv() => {
                // Its default action would end the process with every connection.
                tracing::warn!("SIGUSR2 is ignored: this version cannot hand its sockets to a new program; start that one after this one has drained");
            }
            Some(()) = changes.recv() => {
                while changes.try_recv().is_ok() {}
                if server.watch.as_mut().is_some_and(Watch::has_changed) {
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

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Server {
    /// Opens sockets and lets every worker adopt the generation. On failure nothing has changed.
    async fn put_to_work(
        &mut self,
        build: Build,
        log: Option<Option<Vec<WorkerLog>>>,
    ) -> Result<(), RunError> {
        let generation = build.generation;
        let config = &generation.config;
        let opened = self
            .sockets
            .prepare(config)
            .map_err(|problem| RunError::placed(&build.sources, problem))?;
        let seats = self.sockets.seats(config);
        self.follow_pools(&generation.pools);
        let mut logs = log;
        let mut acknowledged = Vec::with_capacity(self.workers.len());
        for (worker, sockets) in self.workers.iter().zip(opened) {
            let (done, ack) = oneshot::channel();
            let log = match &mut logs {
                None => None,
                Some(None) => Some(None),
                Some(Some(logs)) => Some(logs.pop()),
            };
            let adopt = Command::Adopt {
                generation: generation.clone(),
                sockets,
                seats: seats.clone(),
                log,
                done,
            };
            if worker.commands.send(adopt).is_ok() {
                acknowledged.push(ack);
            }
        }
        for ack in acknowledged {
            ack.await
                .map_err(|_| anyhow::anyhow!("a worker thread has ended; the log says why"))?;
        }
        self.sockets.settle(config);
        if let Some(watch) = &mut self.watch
            && watch.follow(&build.watched)
            && self.state.readiness.get() != Readiness::Starting
        {
            watch.tell();
        }
        self.metrics.generation_serves(generation.number);
        self.samples.serve(generation.clone());
        self.generation = generation;
        Ok(())
    }

    /// Starts checks for pools that are new and stops those of pools that are gone.
    fn follow_pools(&mut self, pools: &[Arc<Pool>]) {
        let mut before = std::mem::take(&mut self.checks);
        for pool in pools {
            let checks = match before
                .iter()
                .position(|(known, _)| Arc::ptr_eq(known, pool))
            {
                Some(at) => before.swap_remove(at).1,
                None => Checks::spawn(pool, &self.resolver),
            };
            self.checks.push((pool.clone(), checks));
        }
    }

    fn ready(&self) -> Ready {
        let listeners = &self.generation.config.listeners;
        Ready {
            listeners: listeners
                .iter()
                .map(|l| (l.name.clone(), self.sockets.addresses(l)))
                .collect(),
        }
    }

    /// Builds the next generation and swaps to it; anything wrong leaves the present one serving.
    async fn reload(&mut self, why: &str) -> ReloadAnswer {
        let started = Instant::now();
        let from = self.generation.number;
        let (builder, previous) = (self.builder.clone(), self.generation.clone());
        let built = tokio::task::spawn_blocking(move || {
            builder
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .build(Some(&previous))
        });
        let answer = match built.await {
            Ok(Ok(build)) => self.swap(build).await,
            Ok(Err(error)) => {
                if let Some(watch) = &mut self.watch {
                    watch.follow(&error.watched);
                }
                Err(refused(from, &error))
            }
            Err(panicked) => Err(ReloadAnswer::refused(
                from,
                serde_json::json!([]),
                format!("the reload failed: {panicked}\n"),
            )),
        };
        match answer {
            Ok((changes, warnings, text)) => {
                if changes.listeners > 0 {
                    descriptors::warn(&self.generation.config);
                }
                let took = started.elapsed();
                let changed = Changed {
                    listeners: changes.listeners,
                    filters: changes.filters,
                    pools: changes.pools,
                    sections: changes.sections.into_iter().map(str::to_owned).collect(),
                };
                let mut answer = ReloadAnswer::done(from, self.generation.number, took, changed);
                if let ReloadAnswer::Done(done) = &mut answer {
                    warn(&text);
                    tracing::info!(why, "{done}");
                    (done.warnings, done.text) = (warnings, text);
                }
                answer
            }
            Err(answer) => {
                self.metrics.reload_failed();
                if let ReloadAnswer::Refused(refused) = &answer {
                    tracing::error!(
                        why,
                        generation = from,
                        "reload refused: the generation that serves goes on\n{}",
                        refused.text.trim_end()
                    );
                }
                answer
            }
        }
    }

    /// With the warnings about the new configuration, for programs and as text.
    async fn swap(
        &mut self,
        build: Build,
    ) -> Result<(Changes, serde_json::Value, String), ReloadAnswer> {
        let from = self.generation.number;
        let changes = build.changes.clone();
        let warnings = render::json(&build.sources, &build.warnings);
        let text = self::warnings(&build);
        let config = build.generation.config.clone();
        if config.workers != self.workers.len() {
            return Err(self.restart_needed(&build, "workers", config.workers.to_string()));
        }
        if config.admin != self.generation.config.admin {
            return Err(self.restart_needed(&build, "admin", "another address".into()));
        }
        let opened = match self.changed_access_log(config.telemetry.access_log.as_ref()) {
            Ok(opened) => opened,
            Err(problem) => return Err(refusal(from, RunError::placed(&build.sources, problem))),
        };
        let writers = opened.as_ref().map(|log| {
            let (_, log) = log.as_ref()?;
            Some(self.workers.iter().map(|_| log.worker()).collect())
        });
        self.put_to_work(build, writers)
            .await
            .map_err(|error| refusal(from, error))?;
        // Only now: a reload that fails must leave the records going where they went.
        if let Some(log) = opened {
            self.access_log = log;
        }
        Ok((changes, warnings, text))
    }

    fn restart_needed(&self, build: &Build, key: &str, wanted: String) -> ReloadAnswer {
        let problem = Problem {
            at: ConfigPath(format!("/{key}")),
            code: "restart-needed",
            message: format!("`{key}` cannot change while the server runs (wanted: {wanted})"),
            help: Some("restart the server, or set it back".into()),
        };
        let diagnostics = [build.sources.diagnose(problem)];
        let json = render::json(&build.sources, &diagnostics);
        ReloadAnswer::refused(
            self.generation.number,
            json,
            render::text(&build.sources, &diagnostics, render::Colour::Never),
        )
    }

    /// Opens the access log anew when its configuration changed.
    fn changed_access_log(
        &self,
        wanted: Option<&AccessLogConfig>,
    ) -> Result<Option<OpenLog>, Problem> {
        let current = self.access_log.as_ref().map(|(config, _)| config);
        if current == wanted {
            return Ok(None);
        }
        let Some(config) = wanted else {
            return Ok(Some(None));
        };
        let opened = AccessLog::open(config, self.metrics.access_log_dropped())
            .map_err(|error| unopened_log(config, &error))?;
        Ok(Some(Some((config.clone(), opened))))
    }

    /// Stops accepting and waits for what runs, up to the deadline; a second signal cuts.
    async fn drain(mut self, signals: &mut Signals) {
        let drain = self.generation.config.drain.clone();
        self.state.readiness.set(Readiness::Draining);
        tracing::info!(timeout_s = drain.timeout.as_secs(), "draining");
        let wait = async {
            tokio::time::sleep(drain.pre_stop).await;
            let mut done = Vec::new();
            for worker in &self.workers {
                let (finished, ended) = oneshot::channel();
                if worker
                    .commands
                    .send(Command::Drain {
                        window: drain.timeout,
                        done: finished,
                    })
                    .is_ok()
                {
                    done.push(ended);
                }
            }
            for ended in done {
                let _ = ended.await;
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(drain.pre_stop + drain.timeout, wait) => match ended {
                Ok(()) => tracing::info!("drained"),
                Err(_) => tracing::warn!("the drain took too long: what still runs is cut"),
            },
            _ = signals.end() => tracing::warn!("a second signal: what still runs is cut"),
        }
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Cut);
        }
        for worker in self.workers.drain(..) {
            if worker.thread.join().is_err() {
                tracing::error!(
                    "a worker thread ended by a mistake of its own, a panic; please report it"
                );
            }
        }
        if let Some((_, log)) = self.access_log.take()
            && !log.close(Duration::from_secs(5))
        {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

/// The warnings about a configuration as text; none are no text.
fn warnings(build: &Build) -> String {
    match build.warnings.is_empty() {
        true => String::new(),
        false => render::text(&build.sources, &build.warnings, render::Colour::Never),
    }
}

/// Tells the log what is odd about a configuration.
fn warn(warnings: &str) {
    if !warnings.is_empty() {
        tracing::warn!("the configuration has warnings\n{}", warnings.trim_end());
    }
}

fn unopened_log(config: &AccessLogConfig, error: &std::io::Error) -> Problem {
    let shown = match &config.to {
        LogTarget::File(path) => format!(" {}", quoted(&path.display().to_string())),
        LogTarget::Stdout | LogTarget::Stderr => String::new(),
    };
    Problem {
        at: ConfigPath("/telemetry/access-log/to".to_owned()),
        code: "access-log-unusable",
        message: format!("the access log{shown} cannot be opened: {}", why(error)),
        help: None,
    }
}

fn refusal(generation: u64, error: RunError) -> ReloadAnswer {
    match error {
        RunError::Config(error) | RunError::Placed(error) => refused(generation, &error),
        RunError::System(error) => {
            let text = format!("error: {error:#}\n");
            ReloadAnswer::refused(generation, serde_json::json!([]), text)
        }
    }
}

fn refused(generation: u64, error: &BuildError) -> ReloadAnswer {
    let json = render::json(&error.sources, &error.diagnostics);
    ReloadAnswer::refused(
        generation,
        json,
        render::text(&error.sources, &error.diagnostics, render::Colour::Never),
    )
}
