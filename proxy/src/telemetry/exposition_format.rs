//! The formats that `/metrics` is served in, and which of them a client prefers.

/// What `/metrics` is served as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    OpenMetrics,
    /// The older text format of Prometheus, 0.0.4.
    Text,
}

impl Exposition {
    pub fn media_type(self) -> &'static str {
        match self {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What a client that sent this Accept field prefers. Without one it gets OpenMetrics; where both are equally welcome
    /// to a client that names OpenMetrics, too.
    pub fn accepted(accept: Option<&str>) -> Self {
        let Some(accept) = accept else {
            return Exposition::OpenMetrics;
        };
        let (mut open, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            let weight = weight.map_or(Some(1.0), |(_, q)| q.trim().parse::<f64>().ok());
            let weight = weight.unwrap_or(0.0);
            match media.as_str() {
                "application/openmetrics-text" => open = weight.max(open),
                "text/plain" | "text/*" | "*/*" => text = weight.max(text),
                _ => {}
            }
        }
        match open > 0.0 && open >= text {
            true => Exposition::OpenMetrics,
            false => Exposition::Text,
        }
    }
}

/// The text format 0.0.4 of an OpenMetrics text: counters are called by the name of their samples, infos are gauges,
/// quotation marks in help are not escaped, and nothing says that it ends.
pub fn to_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 4096);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '));
        let kind = lines.peek().and_then(|l| l.strip_prefix("# TYPE "));
        let kind = kind.and_then(|l| l.split_once(' '));
        match (help, kind) {
            (Some((name, help)), Some((_, kind))) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                let help = help.replace("\\\"", "\"");
                out.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
                lines.next();
            }
            _ if line == "# EOF" => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}
