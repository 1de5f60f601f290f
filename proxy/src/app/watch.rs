//! Tells control when a file that the configuration was made of changes.
//!
//! Directories are watched, not files: editors replace files, and Kubernetes swaps a symbolic link above them.

use notify_debouncer_full::notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes that come closer together than this count as one.
const SETTLE: Duration = Duration::from_millis(100);

pub struct Watch {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    directories: HashSet<PathBuf>,
}

impl Watch {
    /// `changed` gets one message for each burst of changes.
    pub fn start(changed: mpsc::UnboundedSender<()>) -> Result<Self, notify::Error> {
        let debouncer = new_debouncer(SETTLE, None, move |events: DebounceEventResult| {
            let relevant = match events {
                Ok(events) => events.iter().any(|e| !e.kind.is_access()),
                Err(_) => true,
            };
            if relevant {
                let _ = changed.send(());
            }
        })?;
        Ok(Self {
            debouncer,
            directories: HashSet::new(),
        })
    }

    /// Watches the directories of `files` (and those that are directories themselves) from now on.
    pub fn follow(&mut self, files: &[PathBuf]) {
        let wanted: HashSet<PathBuf> = files.iter().flat_map(|file| directories_of(file)).collect();
        for gone in self.directories.difference(&wanted) {
            let _ = self.debouncer.unwatch(gone);
        }
        for added in wanted.difference(&self.directories) {
            if let Err(error) = self.debouncer.watch(added, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, path = %added.display(), "changes there will not be noticed");
            }
        }
        self.directories = wanted;
    }
}

/// The directory of a file as named, and the one it really lies in.
fn directories_of(file: &Path) -> Vec<PathBuf> {
    if file.is_dir() {
        return vec![file.to_owned()];
    }
    let parent = |path: &Path| {
        path.parent()
            .filter(|p| !p.as_os_str().is_empty())
            .map(Path::to_owned)
    };
    let mut found: Vec<PathBuf> = parent(file).into_iter().collect();
    if let Ok(real) = file.canonicalize() {
        found.extend(parent(&real));
    }
    found.retain(|dir| dir.is_dir());
    found
}
