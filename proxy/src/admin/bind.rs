//! Taking the admin interface's address, so that no other process loses its own and nobody gets in before the
//! permissions are right.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::AdminBind;
use crate::error::why;

/// Connections the kernel holds for us while all of ours are busy.
const BACKLOG: i32 = 64;
/// Owner and group.
const SOCKET_MODE: u32 = 0o660;

/// A bound admin interface; [`Admin::serve`] serves it. Dropping it removes the socket file.
#[derive(Debug)]
pub struct Admin {
    pub(super) listener: Listener,
}

#[derive(Debug)]
pub(super) enum Listener {
    Unix(std::os::unix::net::UnixListener, SocketFile),
    Tcp(std::net::TcpListener),
}

/// Why the interface's address could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("the admin socket \"{}\" is in use: another process answers there", .0.display())]
    InUse(PathBuf),
    #[error("the admin socket \"{}\" cannot be made: a file that is not a socket is there", .0.display())]
    NotASocket(PathBuf),
    #[error("the admin address {0} is not a loopback address")]
    NotLoopback(SocketAddr),
    #[error("the admin socket \"{}\" cannot be made: {}", .0.display(), why(.1))]
    Unix(PathBuf, io::Error),
    #[error("the admin address {} cannot be bound: {}", .0, why(.1))]
    Tcp(SocketAddr, io::Error),
}

impl AdminError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            AdminError::InUse(_) => {
                "stop that process, or give this one a socket of its own: `admin: {bind: \"unix:/PATH\"}`"
            }
            AdminError::NotASocket(_) => {
                "move the file away, or set `admin: {bind: \"unix:/PATH\"}`"
            }
            AdminError::NotLoopback(_) | AdminError::Unix(..) | AdminError::Tcp(..) => {
                "`admin: {bind: \"unix:/PATH\"}` names another place, `admin: off` does without"
            }
        }
    }
}

impl Admin {
    /// Binds and listens. A socket file that a dead process left is replaced; a living one's is not (two processes
    /// that start in the same instant may both believe that nobody is there, and the later one wins).
    pub fn bind(address: &AdminBind) -> Result<Self, AdminError> {
        let listener = match address {
            AdminBind::Unix(path) => {
                let (socket, file) = bind_unix(path)?;
                Listener::Unix(socket, file)
            }
            AdminBind::Tcp(address) if !address.ip().is_loopback() => {
                return Err(AdminError::NotLoopback(*address));
            }
            AdminBind::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address)
                    .and_then(|l| l.set_nonblocking(true).map(|()| l));
                Listener::Tcp(bound.map_err(|error| AdminError::Tcp(*address, error))?)
            }
        };
        Ok(Self { listener })
    }

    /// The address that was bound, when it is TCP (port 0 has become a real one).
    #[cfg(test)]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }
}

fn bind_unix(path: &Path) -> Result<(std::os::unix::net::UnixListener, SocketFile), AdminError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.into()));
        }
        // A refused connection is the proof that nobody listens; when we may not connect, somebody may.
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(AdminError::InUse(path.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(AdminError::InUse(path.into()));
            }
            Err(error) => return Err(AdminError::Unix(path.into(), error)),
        },
        Err(_) => {}
    }
    place(path).map_err(|error| AdminError::Unix(path.into(), error))
}

/// Binds under a name of our own, sets the mode, listens, and then moves the name into place: at no time does the path
/// name a socket with wrong permissions or one that refuses, and a stale file is replaced in one step.
fn place(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    // Short, since the kernel bounds the path of a socket to 107 bytes.
    let temporary = path.with_file_name(format!(".{}", std::process::id()));
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&temporary)?)?;
    let placed = std::fs::set_permissions(&temporary, PermissionsExt::from_mode(SOCKET_MODE))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| std::fs::symlink_metadata(&temporary))
        .and_then(|found| std::fs::rename(&temporary, path).map(|()| found));
    match placed {
        Ok(found) => Ok((
            socket.into(),
            SocketFile {
                path: path.into(),
                identity: (found.dev(), found.ino()),
            },
        )),
        Err(why) => {
            let _ = std::fs::remove_file(&temporary);
            Err(why)
        }
    }
}

/// Removes the socket's file at the end, unless another process has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("sub/admin.sock");
        let bind = AdminBind::Unix(path.clone());
        let first = Admin::bind(&bind).expect("first");
        let mode = std::fs::metadata(&path).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(Admin::bind(&bind), Err(AdminError::InUse(_))));
        drop(first);
        assert!(!path.exists(), "removed at the end");

        drop(std::os::unix::net::UnixListener::bind(&path).expect("stale"));
        assert!(path.exists());
        let second = Admin::bind(&bind).expect("replaces the stale one");
        assert!(UnixStream::connect(&path).is_ok());
        // Somebody else's socket at our path is left alone.
        std::fs::remove_file(&path).expect("remove");
        let other = std::os::unix::net::UnixListener::bind(&path).expect("other");
        drop(second);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        std::fs::write(&path, "precious").expect("write");
        let bound = Admin::bind(&AdminBind::Unix(path.clone()));
        assert!(matches!(bound, Err(AdminError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
    }

    #[test]
    fn only_loopback() {
        let outside = AdminBind::Tcp(([0, 0, 0, 0], 0).into());
        assert!(matches!(
            Admin::bind(&outside),
            Err(AdminError::NotLoopback(_))
        ));
    }
}
