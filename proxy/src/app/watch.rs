//! Tells control when a file that the configuration was made of changes.
//!
//! Directories are watched, not files: editors replace files, and Kubernetes swaps a symbolic link above them. Other
//! files may lie in the same directories, perhaps this process's own logs, so a change counts only when one of the
//! configuration's files looks different.

use super::follower::{Follower, Next};
use futures_util::future::LocalBoxFuture;
use notify_debouncer_full::notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes that come closer together than this count as one.
const SETTLE: Duration = Duration::from_millis(100);

/// Watched files that are named in the log.
const SHOWN_MAX: usize = 32;

pub struct Watch {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    directories: HashSet<PathBuf>,
    files: Vec<PathBuf>,
    /// How the files looked when last asked.
    seen: u64,
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
            files: Vec::new(),
            seen: 0,
        })
    }

    /// Watches the directories of `files` (and those that are directories themselves) from now on. True when these are not
    /// the files that were watched before.
    pub fn follow(&mut self, files: &[PathBuf]) -> bool {
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
        if self.files == files {
            return false;
        }
        self.files = files.to_vec();
        self.seen = fingerprint(files);
        true
    }

    /// Tells the log which files and directories make a reload when they change.
    pub fn tell(&self) {
        let mut shown: Vec<String> = Vec::new();
        for file in &self.files {
            let path = file.display().to_string();
            if !shown.contains(&path) {
                shown.push(path);
            }
        }
        let more = shown.len().saturating_sub(SHOWN_MAX);
        shown.truncate(SHOWN_MAX);
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        let files = shown.join(", ");
        tracing::info!(%files, "watching: a change makes a reload");
    }

    /// True when a file of the configuration looks different than when this was last asked.
    pub fn has_changed(&mut self) -> bool {
        let now = fingerprint(&self.files);
        std::mem::replace(&mut self.seen, now) != now
    }
}

impl Follower for Watch {
    fn settle<'a>(&'a mut self, next: &'a Next) -> LocalBoxFuture<'a, ()> {
        if self.follow(&next.watched) && next.present.is_some() {
            self.tell();
        }
        Box::pin(std::future::ready(()))
    }
}

/// What distinguishes the files' present content from any other without reading it; a directory stands for its YAML.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    for file in files {
        look(file, &mut hasher);
        let Ok(entries) = std::fs::read_dir(file) else {
            continue;
        };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
        entries.sort();
        for entry in &entries {
            look(entry, &mut hasher);
        }
    }
    hasher.finish()
}

fn look(path: &Path, hasher: &mut impl Hasher) {
    path.hash(hasher);
    match std::fs::metadata(path) {
        // A directory's own times change with every file in it.
        Ok(found) if found.is_dir() => {}
        Ok(found) => (found.ino(), found.len(), found.mtime(), found.mtime_nsec()).hash(hasher),
        Err(_) => 0.hash(hasher),
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
