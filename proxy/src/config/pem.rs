//! Where PEM comes from: a file, or the configuration itself.

use std::path::{Path, PathBuf};

use super::quoted::quoted;

/// Certificates or a key in PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// Absolute.
    File(PathBuf),
    /// The text, which a configuration has that no file holds, or that `${file:…}` has filled in.
    Text(String),
}

/// What a text has that is PEM itself, and no path to it.
const BEGIN: &str = "-----BEGIN ";
/// The end of a label that no output may show what follows.
const PRIVATE: &str = "PRIVATE KEY-----";

impl Pem {
    /// `text` as PEM itself; none when it is the name of a file.
    pub(super) fn text(text: &str) -> Option<Self> {
        text.contains(BEGIN).then(|| Self::Text(text.to_owned()))
    }

    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }

    /// For messages. What a text says is nobody's business there.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => quoted(&path.display().to_string()),
            Self::Text(_) => "the text".to_owned(),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// Whether `text` has a private key, so that it may not be shown.
pub(super) fn is_private(text: &str) -> bool {
    text.contains(PRIVATE)
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}
