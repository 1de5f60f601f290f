//! What cannot change while the process runs.

use super::follower::{Follower, Next, Refused};
use crate::config::{ConfigPath, Problem};

pub struct Restart;

impl Follower for Restart {
    fn prepare(&mut self, next: &mut Next) -> Result<(), Refused> {
        let Some(present) = &next.present else {
            return Ok(());
        };
        let (present, wanted) = (&present.config, &next.generation.config);
        if present.workers != wanted.workers {
            return Err(needed("workers", &wanted.workers.to_string()));
        }
        if present.admin != wanted.admin {
            return Err(needed("admin", "another address"));
        }
        Ok(())
    }
}

fn needed(key: &str, wanted: &str) -> Refused {
    Refused::Placed(Problem {
        at: ConfigPath(format!("/{key}")),
        code: "restart-needed",
        message: format!("`{key}` cannot change while the server runs (wanted: {wanted})"),
        help: Some("restart the server, or set it back".into()),
    })
}
