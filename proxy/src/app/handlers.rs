//! The components that pools have for endpoints, read and compiled.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::config::{
    Config, ConfigPath, Diagnostic, EndpointAddress, PoolConfig, Problem, Sources, quoted,
};
use crate::error::why;
use crate::protocol;
use crate::upstream::{Handlers, Pool};
use crate::wasm::{Handler, HandlerError, HandlerHost, LogSink, MODULE_BYTES_MAX, ModuleError};

/// Loads handlers for one generation after another; keeps what they share.
#[derive(Default)]
pub(super) struct HandlerLoader {
    /// Made when the first pool needs it: a proxy without handlers pays nothing for it.
    host: Option<HandlerHost>,
    /// Compiled components that some generation still uses, by digest.
    loaded: HashMap<[u8; 32], Weak<Handler>>,
    /// The same of middleware.
    middleware: HashMap<[u8; 32], Weak<Handler>>,
}

impl HandlerLoader {
    /// The components of `pool`. What is wrong with them is among `found`, and their files are among `watched`.
    pub(super) fn load(
        &mut self,
        pool: &PoolConfig,
        config: &Config,
        sources: &Sources,
        watched: &mut Vec<PathBuf>,
        found: &mut Vec<Diagnostic>,
    ) -> Handlers {
        let mut handlers: Vec<(Arc<str>, Arc<Handler>)> = Vec::new();
        for endpoint in &pool.endpoints {
            let EndpointAddress::Handler { path, text } = &endpoint.address else {
                continue;
            };
            watched.push(path.clone());
            if handlers.iter().any(|(known, _)| known == text) {
                continue;
            }
            match self.handler(path, config) {
                Ok(handler) => handlers.push((text.clone(), handler)),
                Err((code, message)) => found.push(sources.diagnose(Problem {
                    at: endpoint.at.clone(),
                    code,
                    message: format!("handler {}: {message}", quoted(&path.display().to_string())),
                    help: None,
                })),
            }
        }
        Handlers::new(handlers)
    }

    /// Middleware in a chain.
    pub(super) fn middleware(
        &mut self,
        name: &str,
        bytes: &[u8],
        config: &Config,
    ) -> Result<Arc<Handler>, (&'static str, String)> {
        let loaded = Loaded {
            host: &mut self.host,
            known: &mut self.middleware,
        };
        loaded.get(bytes, config, |host| {
            Handler::load_middleware(host, name, bytes)
        })
    }

    fn handler(
        &mut self,
        path: &Path,
        config: &Config,
    ) -> Result<Arc<Handler>, (&'static str, String)> {
        let bytes = read_module(path).map_err(|error| {
            let message = format!("the file cannot be read: {}", why(&error));
            ("unreadable-module", message)
        })?;
        let name = path.display().to_string();
        let loaded = Loaded {
            host: &mut self.host,
            known: &mut self.loaded,
        };
        loaded.get(&bytes, config, |host| Handler::load(host, &name, &bytes))
    }
}

/// What was loaded before for one use.
struct Loaded<'a> {
    host: &'a mut Option<HandlerHost>,
    known: &'a mut HashMap<[u8; 32], Weak<Handler>>,
}

impl Loaded<'_> {
    /// The component that some generation has of these bytes, or else a new one.
    fn get(
        self,
        bytes: &[u8],
        config: &Config,
        load: impl FnOnce(&HandlerHost) -> Result<Arc<Handler>, HandlerError>,
    ) -> Result<Arc<Handler>, (&'static str, String)> {
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
        if let Some(known) = self.known.get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let host = self.host.get_or_insert_with(|| {
            HandlerHost::new(config.modules.cache.clone(), LogSink::handlers())
        });
        let handler = load(host).map_err(|error| {
            let code = match error {
                HandlerError::OtherVersion(_)
                | HandlerError::File(ModuleError::OtherVersion { .. }) => "module-version",
                HandlerError::Host(_) => "wasm-host",
                _ => "bad-module",
            };
            (code, error.to_string())
        })?;
        self.known.retain(|_, handler| handler.strong_count() > 0);
        self.known.insert(digest, Arc::downgrade(&handler));
        Ok(handler)
    }
}

/// The file, but of one that is too large for a module no more than shows that it is.
pub(super) fn read_module(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MODULE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A pool that is of no use to what its listener speaks, as handlers are to relayed streams.
pub(super) fn misused(config: &Config, pools: &[Arc<Pool>], sources: &Sources) -> Vec<Diagnostic> {
    let used = config.listeners.iter().filter_map(|listener| {
        let pool = pools.get(listener.pool?)?;
        let protocol = protocol::of(listener);
        let objection = protocol.objects_to(&pool.config)?;
        let (name, pool) = (quoted(&listener.name), quoted(&pool.config.name));
        Some(sources.diagnose(Problem {
            at: ConfigPath(format!("{}/pool", listener.at.0)),
            code: objection.code,
            message: format!(
                "listener {name} is `{}`, and pool {pool} {}",
                protocol.name(),
                objection.why
            ),
            help: Some(objection.help.into()),
        }))
    });
    used.collect()
}
