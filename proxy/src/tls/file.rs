//! The files a TLS configuration was made from, and whether they have changed since.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::config::Pem;

/// No certificate chain or key comes near this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    pub path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
    digest: [u8; 32],
}

impl FileMark {
    /// Whether the file has other content now. A file that only was touched has not changed; one that cannot be read
    /// has, so that the reload says what is wrong with it.
    pub fn has_changed(&self) -> bool {
        let unchanged_at_a_glance = std::fs::metadata(&self.path).is_ok_and(|now| {
            self.modified.is_some()
                && now.modified().ok() == self.modified
                && now.len() == self.length
        });
        !unchanged_at_a_glance && !read(&self.path).is_ok_and(|(_, now)| now.digest == self.digest)
    }
}

/// The content, and the mark of the file that it is from.
pub(super) fn read_pem(pem: &Pem) -> io::Result<(Vec<u8>, Option<FileMark>)> {
    match pem {
        Pem::File(path) => read(path).map(|(content, mark)| (content, Some(mark))),
        Pem::Text(text) => Ok((text.clone().into_bytes(), None)),
    }
}

/// The file's content and mark.
fn read(path: &Path) -> io::Result<(Vec<u8>, FileMark)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    let mark = FileMark {
        path: path.to_owned(),
        modified: metadata.modified().ok(),
        length: content.len() as u64,
        digest: Sha256::digest(&content).into(),
    };
    Ok((content, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_and_a_touch_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        std::fs::write(&path, "one").unwrap();
        let mark = read(&path).unwrap().1;
        assert!(!mark.has_changed());

        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(!mark.has_changed());

        std::fs::write(&path, "two").unwrap();
        assert!(mark.has_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(mark.has_changed());
    }

    #[test]
    fn a_huge_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        File::create(&path)
            .unwrap()
            .set_len(FILE_BYTES_MAX + 1)
            .unwrap();
        assert!(read(&path).is_err());
    }
}
