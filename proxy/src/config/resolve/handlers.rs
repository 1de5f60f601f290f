//! `wasm:` endpoints, and what a pool of them may say.

use std::time::Duration;

use super::resolver::Resolver;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{
    ConfigPath, EndpointAddress, EndpointConfig, HandlerLimits, ModuleSource, ModulesConfig,
};
use crate::config::raw::{RawHandler, RawPool, RawPoolProtocol};

impl Resolver<'_> {
    /// The endpoint written `wasm:FILE`; none when `text` is an address.
    pub(super) fn handler_endpoint(
        &mut self,
        text: &str,
        at: &ConfigPath,
        modules: &ModulesConfig,
    ) -> Option<EndpointAddress> {
        let file = text.strip_prefix("wasm:")?;
        let path = match self.module(file, at, modules) {
            ModuleSource::File(path) => path,
            ModuleSource::Builtin(name) => {
                let message = format!("the builtin {name} is a filter, not a handler");
                let help = "write `wasm:` and the path of a wasi:http component";
                self.push(Diagnostic::error("bad-address", message).help(help), at);
                std::path::PathBuf::from(file)
            }
        };
        let name = file.strip_prefix("./").unwrap_or(file);
        Some(EndpointAddress::Handler {
            path,
            text: format!("wasm:{name}").into(),
        })
    }

    pub(super) fn handler_limits(
        &mut self,
        raw: Option<&RawHandler>,
        at: &ConfigPath,
    ) -> HandlerLimits {
        let Some(raw) = raw else {
            return HandlerLimits::default();
        };
        let millisecond = Duration::from_millis(1);
        HandlerLimits {
            memory: self.size(&raw.memory, &at.join("memory"), 64 << 10, 4 << 30),
            deadline: self.duration(&raw.deadline, &at.join("deadline"), millisecond),
            cpu: self.duration(&raw.cpu, &at.join("cpu"), millisecond),
            instances: raw.instances,
        }
    }

    /// What is said of a pool that means nothing for what its endpoints are.
    pub(super) fn kind_of_pool(
        &mut self,
        raw: &RawPool,
        endpoints: &[EndpointConfig],
        at: &ConfigPath,
    ) {
        let is_handler = |e: &EndpointConfig| matches!(e.address, EndpointAddress::Handler { .. });
        let Some(first) = endpoints.iter().find(|e| is_handler(e)) else {
            if raw.handler.is_some() && !endpoints.is_empty() {
                let message = "`handler` is not used: no endpoint is a `wasm:` component";
                self.push(
                    Diagnostic::warning("unused", message.to_owned()).help("remove it"),
                    &at.join("handler"),
                );
            }
            return;
        };
        if let Some(other) = endpoints.iter().find(|e| !is_handler(e)) {
            let place = other.at.clone();
            let mut problem = Diagnostic::error(
                "mixed-pool",
                "a pool has `wasm:` endpoints or addresses, not both",
            )
            .help("make two pools of it, and let a filter choose");
            if let Some(first) = self.sources.locate(&first.at) {
                problem = problem.label(first, "a component here");
            }
            self.push(problem, &place);
        }
        let meaningless = [
            (
                raw.check.is_some(),
                "check",
                "a component is not probed: each request has an instance of its own",
            ),
            (
                raw.tls.is_some(),
                "tls",
                "nothing is connected to: the component runs in the proxy",
            ),
            (
                !matches!(raw.protocol, RawPoolProtocol::Http1),
                "protocol",
                "a component is called, and speaks no protocol",
            ),
            (
                raw.max_connections.is_some(),
                "max-connections",
                "requests at one time are limited by `handler: {instances: …}`",
            ),
        ];
        for (said, key, why) in meaningless {
            if said {
                let message = format!("`{key}` means nothing for `wasm:` endpoints: {why}");
                self.push(
                    Diagnostic::error("handler-pool", message).help(format!("remove `{key}`")),
                    &at.join(key),
                );
            }
        }
    }
}
