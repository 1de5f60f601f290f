//! `workers:`, `admin:`, `telemetry:`, `drain:`

use std::net::SocketAddr;
use std::time::Duration;

use super::resolver::Resolver;
use crate::config::diagnostic::{Diagnostic, quoted};
use crate::config::model::{
    AccessLogConfig, AdminBind, AdminConfig, ConfigPath, DrainConfig, LogFormat, LogTarget,
    TelemetryConfig,
};
use crate::config::raw::{
    RawAccessLog, RawAdmin, RawDrain, RawLogFormat, RawTelemetry, RawWorkers,
};

/// Bytes of a unix socket's path, without the closing NUL.
const SOCKET_PATH_MAX: usize = 107;

impl Resolver<'_> {
    pub(super) fn workers(&self, raw: &RawWorkers) -> usize {
        match raw {
            RawWorkers::Count(count) => *count as usize,
            RawWorkers::Auto(_) => self.env.processors.max(1),
        }
    }

    pub(super) fn admin(&mut self, raw: &RawAdmin, at: &ConfigPath) -> AdminConfig {
        let RawAdmin::On(admin) = raw else {
            return AdminConfig { bind: None };
        };
        let at = at.join("bind");
        let text = admin.bind.as_str();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = self.path(path, &at);
            if text == "unix:" || path.as_os_str().len() > SOCKET_PATH_MAX {
                let message = format!("{} is not the path of a socket", quoted(text));
                let help = format!(
                    "at most {SOCKET_PATH_MAX} bytes, such as `unix:/run/sluicegate/admin.sock`"
                );
                self.push(Diagnostic::error("bad-address", message).help(help), &at);
            }
            return AdminConfig {
                bind: Some(AdminBind::Unix(path)),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => AdminConfig {
                bind: Some(AdminBind::Tcp(address)),
            },
            Ok(_) => {
                let message = format!("the admin interface cannot listen on {}", quoted(text));
                let help =
                    "use `unix:/path` or a loopback address: whoever reaches it controls the proxy";
                self.push(Diagnostic::error("admin-exposed", message).help(help), &at);
                AdminConfig { bind: None }
            }
            Err(_) => {
                let message = format!("{} is not an address for the admin interface", quoted(text));
                let help = "write `unix:/path`, `127.0.0.1:9901`, or `admin: off`";
                self.push(Diagnostic::error("bad-address", message).help(help), &at);
                AdminConfig { bind: None }
            }
        }
    }

    pub(super) fn telemetry(&mut self, raw: &RawTelemetry, at: &ConfigPath) -> TelemetryConfig {
        let RawAccessLog::On(log) = &raw.access_log else {
            return TelemetryConfig { access_log: None };
        };
        let at = at.join("access-log").join("to");
        let to = match log.to.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            path => {
                if !path.contains('/') {
                    let message = format!("{} is not a place for the access log", quoted(path));
                    let help = "write `stdout`, `stderr`, or a path with a `/` in it";
                    self.push(Diagnostic::error("bad-value", message).help(help), &at);
                }
                LogTarget::File(self.path(path, &at))
            }
        };
        let format = match log.format {
            RawLogFormat::Text => LogFormat::Text,
            RawLogFormat::Json => LogFormat::Json,
            RawLogFormat::Combined => LogFormat::Combined,
        };
        TelemetryConfig {
            access_log: Some(AccessLogConfig { to, format }),
        }
    }

    pub(super) fn drain(&mut self, raw: &RawDrain, at: &ConfigPath) -> DrainConfig {
        DrainConfig {
            pre_stop: self.duration(&raw.pre_stop, &at.join("pre-stop"), Duration::ZERO),
            timeout: self.duration(&raw.timeout, &at.join("timeout"), Duration::ZERO),
        }
    }
}
