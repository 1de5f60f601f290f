//! Why the server did not run.

use super::build::BuildError;
use super::follower::Refused;
use crate::config::Sources;

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
    /// `sources` are those of the configuration that was refused.
    pub(super) fn refused(sources: &Sources, refused: Refused) -> Self {
        let problem = match refused {
            Refused::Placed(problem) => problem,
            Refused::System(error) => return RunError::System(error),
        };
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
