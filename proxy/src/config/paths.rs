//! Paths as they are shown and opened: `./x/../y` is `y`.

use std::path::{Component, Path, PathBuf};

/// An absolute path without `.`, doubled slashes, and each `..` that leads back where it came from. A `..` behind a link
/// leads elsewhere, and stays.
pub(super) fn clean(path: &Path) -> PathBuf {
    clean_in(Path::new("/"), path)
}

/// The same for a path that starts at the directory `cwd` when it is relative.
pub(super) fn clean_in(cwd: &Path, path: &Path) -> PathBuf {
    let parts = path.components();
    let tidy: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    let mut short = PathBuf::new();
    for part in tidy.components() {
        match (part, short.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                short.pop();
            }
            (Component::ParentDir, Some(Component::RootDir)) => {}
            _ => short.push(part),
        }
    }
    let is_same = short == tidy || real(&cwd.join(&short)) == real(&cwd.join(&tidy));
    match if is_same { short } else { tidy } {
        empty if empty.as_os_str().is_empty() => PathBuf::from("."),
        path => path,
    }
}

/// Where a path leads; of a file that is not there yet, where it would be. None when not even its directory is there.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize()
        .or_else(|_| {
            let name = path.file_name().ok_or(std::io::ErrorKind::NotFound)?;
            let directory = path.parent().ok_or(std::io::ErrorKind::NotFound)?;
            Ok::<_, std::io::Error>(directory.canonicalize()?.join(name))
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_go_unless_a_link_makes_them_lead_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let cwd = dir.path();
        std::fs::create_dir_all(cwd.join("a/b")).expect("directories");
        std::fs::create_dir(cwd.join("c")).expect("a directory");
        std::fs::write(cwd.join("y"), "").expect("a file");
        std::os::unix::fs::symlink("a/b", cwd.join("link")).expect("a link");
        for (path, expected) in [
            ("y", "y"),
            ("./y", "y"),
            ("./c/../y", "y"),
            ("a/./b/..//../y", "y"),
            ("c/..", "."),
            (".", "."),
            ("../x", "../x"),
            ("c/../../x", "../x"),
            ("c/../new.log", "new.log"),
            ("gone/../gone-too", "gone/../gone-too"),
            ("gone/../no/x", "no/x"),
            // `y` beside the link is not what lies above its target.
            ("link/../y", "link/../y"),
            ("link/../new.log", "link/../new.log"),
            ("/../x", "/x"),
        ] {
            assert_eq!(
                clean_in(cwd, Path::new(path)),
                Path::new(expected),
                "{path}"
            );
        }
        let absolute = cwd.join("./a/../c/../y");
        assert_eq!(clean(&absolute), cwd.join("y"));
    }
}
