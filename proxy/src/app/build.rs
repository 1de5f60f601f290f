//! From configuration to a generation, or to everything that is wrong with it. Changes nothing that serves.

mod differ;
mod judge;

pub use differ::Changes;

use super::handlers::{HandlerLoader, misused, read_module};
use super::origin::{Named, Origin};
use crate::chain::{Filter, Middleware, Refill};
use crate::config::{
    self, ConfigPath, Diagnostic, Environment, FilterConfig, Input, ListenerConfig, ModuleSource,
    Pem, PoolConfig, Problem, Severity, Sources, quoted,
};
use crate::error::why;
use crate::generation::{FilterUse, Generation, Listener, Member};
use crate::protocol;
use crate::store::Store;
use crate::tls::{ClientTls, ServerTls};
use crate::upstream::{Pool, Registry};
use crate::wasm::{Host, Module, ModuleError, is_middleware};
use differ::same_tls;
use judge::{misplaced, wrong_settings};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// Builds generations one after another; keeps what they share.
pub struct Builder {
    pub(super) origins: Vec<Box<dyn Origin>>,
    vars: Vars,
    cwd: PathBuf,
    processors: usize,
    registry: Arc<Registry>,
    host: Option<Host>,
    refill: Refill,
    handlers: HandlerLoader,
    /// Compiled modules that some generation still uses, by digest.
    modules: HashMap<[u8; 32], Weak<Module>>,
}

/// Makes instances anew, away from the workers, on a thread that lives while some filter can ask for it.
fn refill() -> Refill {
    let (asked, asks) = std::sync::mpsc::channel::<Arc<Filter>>();
    let restocking = std::thread::Builder::new()
        .name("restock".into())
        .spawn(move || {
            for filter in asks {
                filter.restock();
            }
        });
    if let Err(error) = restocking {
        tracing::warn!(
            error = why(&error),
            "no thread to restock filter instances: workers make their own"
        );
    }
    Arc::new(move |filter| {
        let _ = asked.send(filter);
    })
}

/// Looks a variable of the environment up.
pub type Vars = Box<dyn Fn(&str) -> Option<String> + Send>;

/// A generation that is ready to serve.
pub struct Build {
    pub generation: Arc<Generation>,
    pub changes: Changes,
    pub warnings: Vec<Diagnostic>,
    pub sources: Sources,
    /// Every file and directory whose change may change the outcome.
    pub watched: Vec<PathBuf>,
}

/// Why there is none.
pub struct BuildError {
    pub diagnostics: Vec<Diagnostic>,
    pub sources: Sources,
    pub watched: Vec<PathBuf>,
}

impl Builder {
    pub fn new(inputs: Vec<Input>, vars: Vars, cwd: PathBuf) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            origins: vec![Box::new(Named::new(inputs))],
            vars,
            cwd,
            processors,
            registry: Registry::new(),
            host: None,
            handlers: HandlerLoader::default(),
            refill: refill(),
            modules: HashMap::new(),
        }
    }

    /// From the next build on, what `origin` has is a part of the configuration too.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the command line is the only origin yet")
    )]
    pub fn add_origin(&mut self, origin: Box<dyn Origin>) {
        self.origins.push(origin);
    }

    /// Loads, compiles and configures everything. Blocks for as long as that takes.
    pub fn build(&mut self, previous: Option<&Arc<Generation>>) -> Result<Build, Box<BuildError>> {
        let env = Environment {
            vars: &*self.vars,
            builtins: crate::builtin::names()
                .iter()
                .map(|name| name.to_string())
                .collect(),
            cwd: self.cwd.clone(),
            processors: self.processors,
        };
        let parts = self.origins.iter_mut().map(|origin| origin.next());
        let inputs: Vec<Input> = parts.flatten().collect();
        // A configuration with mistakes is looked through to its end all the same, so that all of them are told.
        let (config, sources, mut watched, mut found, sound) = match config::load(&inputs, &env) {
            Ok(loaded) => {
                let (config, found) = (loaded.config, loaded.warnings);
                (config, loaded.sources, loaded.watched, found, true)
            }
            Err(rejected) => {
                let (sources, watched) = (rejected.sources, rejected.watched);
                let diagnostics = rejected.diagnostics;
                match rejected.partial {
                    Some(config) => (config, sources, watched, diagnostics, false),
                    None => {
                        return Err(Box::new(BuildError {
                            diagnostics,
                            sources,
                            watched,
                        }));
                    }
                }
            }
        };
        let config = Arc::new(config);
        let told = found.len();

        let mut pools: Vec<Arc<Pool>> = Vec::with_capacity(config.pools.len());
        for pool in &config.pools {
            let before = previous.and_then(|g| g.pools.iter().find(|p| p.config.name == pool.name));
            if let Some(tls) = &pool.tls {
                let own = tls.certificate.iter().flat_map(|own| [&own.cert, &own.key]);
                let files = tls.ca.iter().chain(own).filter_map(Pem::file);
                watched.extend(files.map(Path::to_owned));
            }
            let tls = load_client_tls(pool, &sources, &mut found);
            let handlers = self
                .handlers
                .load(pool, &config, &sources, &mut watched, &mut found);
            pools.push(Pool::with(pool, tls, handlers, before, &self.registry));
        }

        found.extend(misused(&config, &pools, &sources));

        let mut members = Vec::with_capacity(config.filters.len());
        for (index, filter) in config.filters.iter().enumerate() {
            if let ModuleSource::File(path) = &filter.module {
                watched.push(path.clone());
            }
            match self.member(filter, &config, &sources, previous, sound) {
                Ok(built) => {
                    found.extend(misplaced(&built, index, &config, &sources));
                    members.push(built);
                }
                Err(problems) => found.extend(problems),
            }
        }

        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let before =
                previous.and_then(|g| g.listeners.iter().find(|l| l.config.name == listener.name));
            let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
            let pems = certificates.flat_map(|certificate| [&certificate.cert, &certificate.key]);
            watched.extend(pems.filter_map(Pem::file).map(Path::to_owned));
            match load_listener(listener, before, &sources, &mut found) {
                Ok(built) => listeners.push(built),
                Err(problems) => found.extend(problems),
            }
        }

        if !sound {
            let further = found.split_off(told);
            keep_news(&mut found, further);
        }
        found.sort_by_key(|d| (d.severity, d.at.map(|at| (at.file, at.line, at.column))));
        if found.iter().any(|d| d.severity == Severity::Error) {
            return Err(Box::new(BuildError {
                diagnostics: found,
                sources,
                watched,
            }));
        }
        let number = previous.map_or(1, |g| g.number + 1);
        if !config.filters.is_empty() {
            // Any filter may give a sticky key; its first pick should not wait for the table.
            pools.iter().for_each(|pool| pool.prepare_hash());
        }
        let generation = Arc::new(Generation {
            number,
            config,
            pools,
            members,
            listeners,
        });
        let changes = previous.map_or_else(Changes::default, |before| {
            Changes::between(before, &generation)
        });
        Ok(Build {
            generation,
            changes,
            warnings: found,
            sources,
            watched,
        })
    }

    /// The filter, or middleware, of the generation before when nothing about it changed, else a new one.
    fn member(
        &mut self,
        config: &Arc<FilterConfig>,
        all: &config::Config,
        sources: &Sources,
        previous: Option<&Arc<Generation>>,
        sound: bool,
    ) -> Result<Member, Vec<Diagnostic>> {
        let diagnose = |problems: Vec<Problem>| -> Vec<Diagnostic> {
            problems
                .into_iter()
                .map(|problem| sources.diagnose(problem))
                .collect()
        };
        let at = ConfigPath(format!("{}/module", config.at.0));
        let problem = |code, message: String| {
            vec![sources.diagnose(Problem {
                at: at.clone(),
                code,
                message,
                help: None,
            })]
        };
        let (name, bytes) = match &config.module {
            ModuleSource::Builtin(name) => match crate::builtin::builtin(name) {
                Some(bytes) => (format!("builtin:{name}"), bytes.into()),
                None => {
                    return Err(problem(
                        "unknown-module",
                        format!("there is no builtin filter {}", quoted(name)),
                    ));
                }
            },
            ModuleSource::File(path) => match read_module(path) {
                Ok(bytes) => (name_of(path), std::borrow::Cow::Owned(bytes)),
                Err(error) => {
                    return Err(problem(
                        "unreadable-module",
                        format!(
                            "cannot read the module {}: {}",
                            quoted(&name_of(path)),
                            why(&error)
                        ),
                    ));
                }
            },
        };
        if let Some(problem) = unpinned(config, &name, &bytes) {
            return Err(diagnose(vec![problem]));
        }
        if is_middleware(&bytes) {
            let handler = self.handlers.middleware(&name, &bytes, all);
            let handler = handler.map_err(|(code, message)| {
                problem(code, format!("module {}: {message}", quoted(&name)))
            })?;
            let before = previous.into_iter().flat_map(|g| &g.members);
            let mut same = before.filter_map(|member| match member {
                Member::Middleware(same) if same.is_same(config, handler.digest()) => Some(same),
                _ => None,
            });
            if let Some(same) = same.next() {
                return Ok(Member::Middleware(same.clone()));
            }
            let made = Middleware::new(config, handler).map_err(diagnose)?;
            return Ok(Member::Middleware(Arc::new(made)));
        }
        if config.handler.is_some() {
            return Err(diagnose(vec![Problem {
                at: ConfigPath(format!("{}/handler", config.at.0)),
                code: "middleware",
                message: format!(
                    "`handler` means nothing for filter {}: its module is not middleware of wasi:http",
                    quoted(&config.name)
                ),
                help: Some("its limits are those of `limits: {…}`".into()),
            }]));
        }
        let host = self
            .host(all)
            .map_err(|error| problem("wasm-host", error))?;
        let module = self.module(&host, &name, &bytes).map_err(|error| {
            let code = match error {
                ModuleError::OtherVersion { .. } => "module-version",
                _ => "bad-module",
            };
            problem(code, format!("module {}: {error}", quoted(&name)))
        })?;
        let same = previous.and_then(|g| {
            g.filters()
                .find(|f| f.filter.is_same(config, module.digest()))
        });
        let filter = match same {
            Some(same) => same.filter.clone(),
            None => {
                // A module that lacks a grant is refused below, before anything of it runs.
                if module.missing_capabilities(&config.capabilities).is_empty()
                    && let Some(wrong) = wrong_settings(&module, config, sources)
                {
                    return Err(wrong);
                }
                let replaced = previous
                    .and_then(|g| g.filters().find(|f| f.filter.name() == &config.name))
                    .map(|used| &*used.filter);
                let refill = self.refill.clone();
                Filter::load_after(replaced, module, config.clone(), all.workers, refill)
                    .map_err(diagnose)?
            }
        };
        // A pool that has a mistake of its own is missing from `all`: it is not this filter's.
        let pools = match sound {
            true => filter.pool_table(config, &all.pools).map_err(diagnose)?,
            false => Arc::default(),
        };
        let before = previous.and_then(|g| {
            let same_name = g.filters().find(|f| *f.filter.name() == config.name);
            same_name.map(|f| &f.store)
        });
        let store = Store::open(&config.name, &config.store, before);
        Ok(Member::Filter(FilterUse {
            filter,
            pools,
            store,
        }))
    }

    /// The wasm host, made when the first filter needs it: a proxy without filters pays nothing for it.
    fn host(&mut self, config: &config::Config) -> Result<Host, String> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let options = crate::wasm::HostOptions {
            cache: config.modules.cache.clone(),
            ..Default::default()
        };
        let host = Host::new(options).map_err(|error| error.to_string())?;
        self.host = Some(host.clone());
        Ok(host)
    }

    fn module(
        &mut self,
        host: &Host,
        name: &str,
        bytes: &[u8],
    ) -> Result<Arc<Module>, ModuleError> {
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
        if let Some(module) = self.modules.get(&digest).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let module = Module::load(host, name, bytes)?;
        self.modules.retain(|_, module| module.strong_count() > 0);
        self.modules.insert(digest, Arc::downgrade(&module));
        Ok(module)
    }
}

/// The pool's TLS, if it has and can have any; what is wrong with it is among `found`.
fn load_client_tls(
    pool: &PoolConfig,
    sources: &Sources,
    found: &mut Vec<Diagnostic>,
) -> Option<ClientTls> {
    match ClientTls::load(pool.tls.as_ref()?) {
        Ok(tls) => {
            found.extend(tls.warnings().iter().map(|warning| Diagnostic {
                severity: Severity::Warning,
                ..sources.diagnose(warning.clone())
            }));
            Some(tls)
        }
        Err(problems) => {
            found.extend(
                problems
                    .into_iter()
                    .map(|problem| sources.diagnose(problem)),
            );
            None
        }
    }
}

/// A module whose digest is not the one that the configuration pins. It is not even compiled.
fn unpinned(config: &FilterConfig, name: &str, bytes: &[u8]) -> Option<Problem> {
    let pinned = config.sha256?;
    let found: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
    (found != pinned).then(|| Problem {
        at: ConfigPath(format!("{}/sha256", config.at.0)),
        code: "digest-mismatch",
        message: format!(
            "the module {} is not the one that `sha256` pins:\nit has    {}\npinned is {}",
            quoted(name),
            hex(&found),
            hex(&pinned)
        ),
        help: Some("if the file was changed on purpose, write its digest here".into()),
    })
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn name_of(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// The listener with its TLS loaded; certificates are read anew each time, so that a reload picks up changed files.
fn load_listener(
    config: &Arc<ListenerConfig>,
    before: Option<&Arc<Listener>>,
    sources: &Sources,
    found: &mut Vec<Diagnostic>,
) -> Result<Arc<Listener>, Vec<Diagnostic>> {
    let offered = protocol::of(config).alpn(config);
    let tls_before = before.and_then(|l| l.tls.as_ref());
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let loaded =
                ServerTls::load(tls, offered, tls_before.map(|t| &**t)).map_err(|problems| {
                    problems
                        .into_iter()
                        .map(|p| sources.diagnose(p))
                        .collect::<Vec<_>>()
                })?;
            found.extend(loaded.warnings().iter().map(|warning| Diagnostic {
                severity: Severity::Warning,
                ..sources.diagnose(warning.clone())
            }));
            Some(Arc::new(loaded))
        }
    };
    if let Some(before) = before
        && before.config == *config
        && same_tls(before.tls.as_deref(), tls.as_deref())
    {
        return Ok(before.clone());
    }
    Ok(Arc::new(Listener {
        config: config.clone(),
        tls,
    }))
}

/// Adds findings about places that are not blamed yet: what follows from a mistake that is told need not be told too.
fn keep_news(found: &mut Vec<Diagnostic>, further: Vec<Diagnostic>) {
    let place = |d: &Diagnostic| d.at.map(|at| (at.file, at.line, at.column));
    for new in further {
        if new.at.is_none() || !found.iter().any(|old| place(old) == place(&new)) {
            found.push(new);
        }
    }
}
