//! An explanation for people.

use std::fmt::{self, Display, Formatter};

use super::{Change, Explanation, Message, Outcome, RouteTold, Rule, Step, Verdict};

/// Bytes of a reply's body that are shown.
const BODY_BYTES_MAX: usize = 2000;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let listener = &self.listener;
        let tls = if listener.tls { " over TLS" } else { "" };
        writeln!(
            f,
            "listener \"{}\" at {}, {}{tls}",
            listener.name, listener.address, listener.protocol
        )?;
        match self.peer.starts_with(&self.client)
            || self.peer.starts_with(&format!("[{}", self.client))
        {
            true => writeln!(f, "client {}", self.client)?,
            false => writeln!(f, "client {}, by way of {}", self.client, self.peer)?,
        }
        // The route is known when the filters are through with the request.
        let mut route = self.route.as_ref();
        for step in &self.steps {
            if matches!(step.phase, "forward" | "response")
                && let Some(route) = route.take()
            {
                show_route(f, route)?;
            }
            show_step(f, step)?;
        }
        if let Some(route) = route {
            show_route(f, route)?;
        }
        show_outcome(f, &self.outcome)?;
        let later = &self.later;
        for (title, names) in [
            ("these filters want the request's body", &later.request_body),
            ("then these filters see the response", &later.response),
            ("these want the response's body", &later.response_body),
            ("then these filters are told of the end", &later.log),
        ] {
            show_list(f, title, names)?;
        }
        if !self.assumed.is_empty() {
            writeln!(f, "\nassumed")?;
            for note in &self.assumed {
                writeln!(f, "  {note}")?;
            }
        }
        Ok(())
    }
}

fn show_list(f: &mut Formatter<'_>, title: &str, names: &[String]) -> fmt::Result {
    match names.is_empty() {
        true => Ok(()),
        false => writeln!(f, "\n{title}: {}", names.join(", ")),
    }
}

fn show_step(f: &mut Formatter<'_>, step: &Step) -> fmt::Result {
    let because = step.because.as_deref().unwrap_or("");
    match (&step.filter, step.verdict) {
        (Some(filter), Some(verdict)) => {
            write!(f, "\nfilter \"{filter}\", {}: ", step.phase)?;
            match verdict {
                Verdict::NotCalled => writeln!(f, "not called: {}", Tame(because))?,
                Verdict::Next => writeln!(f, "next")?,
                Verdict::Reply => writeln!(f, "reply")?,
                Verdict::Drop => writeln!(f, "drop")?,
                Verdict::Reset => writeln!(f, "reset")?,
                Verdict::Suspend => writeln!(f, "suspend")?,
                Verdict::Fault => writeln!(f, "fault ({because}); its on-error is fail")?,
                Verdict::FaultBypassed => {
                    writeln!(f, "fault ({because}); its on-error is bypass")?;
                }
            }
        }
        // A step of the proxy without changes says nothing.
        _ if step.changes.is_empty() => return Ok(()),
        _ if step.phase == "receive" => writeln!(f, "\nbefore the filters")?,
        _ => writeln!(f, "\nafter the filters")?,
    }
    for change in &step.changes {
        show_change(f, change)?;
    }
    Ok(())
}

fn show_change(f: &mut Formatter<'_>, change: &Change) -> fmt::Result {
    let Some(name) = &change.name else {
        return match (&change.old[..], &change.new[..]) {
            ([], [new]) => writeln!(f, "  {}: {}", change.what, Tame(new)),
            (old, new) => writeln!(
                f,
                "  {}: {} → {}",
                change.what,
                Tame(&old.join(", ")),
                Tame(&new.join(", "))
            ),
        };
    };
    // Lines that are there before and after are left out when others come behind them.
    let same = match change.new.starts_with(&change.old) {
        true => change.old.len(),
        false => 0,
    };
    for value in &change.old[same..] {
        writeln!(f, "  - {}: {}", Tame(name), Tame(value))?;
    }
    for value in &change.new[same..] {
        writeln!(f, "  + {}: {}", Tame(name), Tame(value))?;
    }
    Ok(())
}

fn show_route(f: &mut Formatter<'_>, route: &RouteTold) -> fmt::Result {
    writeln!(f, "\nroute")?;
    match &route.chosen_by {
        Some(filter) => writeln!(
            f,
            "  pool \"{}\", chosen by filter \"{filter}\"",
            route.pool
        )?,
        None => writeln!(f, "  pool \"{}\", the listener's", route.pool)?,
    }
    match &route.endpoint {
        Some(endpoint) => writeln!(f, "  endpoint {endpoint}: {}", Tame(&route.because)),
        None if route.rule == Rule::NoEndpoint => {
            writeln!(f, "  no endpoint: {}", Tame(&route.because))
        }
        None => writeln!(f, "  endpoint not known: {}", Tame(&route.because)),
    }
}

fn show_outcome(f: &mut Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    let who = |by: &Option<String>| match by {
        Some(filter) => format!("filter \"{filter}\""),
        None => "the proxy".to_owned(),
    };
    match outcome {
        Outcome::Forward { request } => {
            writeln!(f, "\nthe endpoint gets")?;
            show_message(f, request)
        }
        Outcome::Relay => writeln!(f, "\nthe connection is relayed"),
        Outcome::Reply {
            by,
            reason,
            response,
        } => {
            writeln!(f, "\nthe client gets, from {} ({reason})", who(by))?;
            show_message(f, response)
        }
        Outcome::Drop { by, reason } => writeln!(
            f,
            "\nthe connection is closed without a byte, by {} ({reason})",
            who(by)
        ),
        Outcome::Reset { by, reason } => {
            writeln!(f, "\nthe connection is reset, by {} ({reason})", who(by))
        }
        Outcome::Suspend { by, effects } => {
            writeln!(f, "\nfilter \"{by}\" waits for")?;
            for effect in effects {
                writeln!(f, "  {}", Tame(effect))?;
            }
            writeln!(
                f,
                "nothing is asked of others here, so that what it says then is not known"
            )
        }
    }
}

fn show_message(f: &mut Formatter<'_>, message: &Message) -> fmt::Result {
    writeln!(f, "  {}", Tame(&message.start))?;
    for (name, value) in &message.fields {
        writeln!(f, "  {}: {}", Tame(name), Tame(value))?;
    }
    let Some(body) = message.body.as_ref().filter(|body| !body.is_empty()) else {
        return Ok(());
    };
    let mut end = body.len().min(BODY_BYTES_MAX);
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    writeln!(f)?;
    for line in body[..end].lines() {
        writeln!(f, "  {}", Tame(line))?;
    }
    match body.len() > end {
        true => writeln!(f, "  … {} bytes in all", body.len()),
        false => Ok(()),
    }
}

/// Text that cannot move the terminal's cursor.
struct Tame<'a>(&'a str);

impl Display for Tame<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c.is_control() && c != '\t' {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
