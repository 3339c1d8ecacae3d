//! Sockets to serve on: bound here, or inherited from systemd.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use listenfd::ListenFd;
use rustix::{fs::Mode, net::sockopt::socket_acceptconn, process::umask};

use crate::config::Listen;

/// An open socket, and the address that clients use to reach it.
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    /// `http://127.0.0.1:8080` or `unix:/run/llm-server.sock`.
    pub(crate) address: String,
    pub(crate) owner: Owner,
    /// Removes the file of a Unix socket that we made.
    pub(crate) file: Option<SocketFile>,
}

/// Who listens, and goes on listening or does not when this process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody: the socket ends with us.
    Us,
    /// It keeps whoever connects for the next process.
    ServiceManager,
}

pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "listen = \"{address}\": the address is in use by another process; stop it, or choose another port (port 0 takes any free one)"
    )]
    InUse { address: String },
    #[error("listen = \"{address}\": {cause}")]
    Bind { address: String, cause: io::Error },
    #[error("listen = \"unix:{}\": a file that is no socket stands there", .0.display())]
    NotASocket(PathBuf),
    #[error(
        "socket {index} from the service manager is neither a TCP nor a Unix stream listener: {cause}"
    )]
    Inherited { index: usize, cause: io::Error },
}

/// The sockets that systemd passed, all of them; without any, the one that the configuration names.
pub(crate) fn open(listen: &Listen) -> Result<Vec<Bound>, ListenError> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 0 {
        return (0..passed.len())
            .map(|index| inherit(&mut passed, index))
            .collect();
    }
    match listen {
        Listen::Tcp(address) => bind_tcp(*address),
        Listen::Unix(path) => bind_unix(path),
    }
    .map(|bound| vec![bound])
}

/// Whose these are: either all are ours or none.
pub(crate) fn owner(sockets: &[Bound]) -> Owner {
    sockets.first().map_or(Owner::Us, |bound| bound.owner)
}

fn inherit(passed: &mut ListenFd, index: usize) -> Result<Bound, ListenError> {
    let lost = || io::Error::from(ErrorKind::NotFound);
    let tcp = passed
        .take_tcp_listener(index)
        .and_then(|it| it.ok_or_else(lost));
    let bound = match tcp {
        Ok(listener) => listens(&listener).and_then(|()| tcp_bound(listener)),
        Err(_) => passed
            .take_unix_listener(index)
            .and_then(|it| it.ok_or_else(lost))
            .and_then(|listener| {
                listens(&listener)?;
                let address = listener.local_addr()?;
                let path = address
                    .as_pathname()
                    .map_or_else(|| "(unnamed)".into(), Path::to_string_lossy);
                unix_bound(listener, format!("unix:{path}"), None)
            }),
    };
    bound
        .map(|bound| Bound {
            owner: Owner::ServiceManager,
            ..bound
        })
        .map_err(|cause| ListenError::Inherited { index, cause })
}

/// A unit with `Accept=yes` passes a connection, from which nothing can ever be accepted.
fn listens(socket: &impl AsFd) -> io::Result<()> {
    if socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::other(
        "it does not listen; expected ListenStream= and Accept=no in the socket unit",
    ))
}

fn bind_tcp(address: SocketAddr) -> Result<Bound, ListenError> {
    // std sets SO_REUSEADDR, so a restart need not wait for old connections to time out.
    TcpListener::bind(address)
        .and_then(tcp_bound)
        .map_err(|cause| match cause.kind() {
            ErrorKind::AddrInUse => ListenError::InUse {
                address: address.to_string(),
            },
            _ => ListenError::Bind {
                address: address.to_string(),
                cause,
            },
        })
}

fn tcp_bound(listener: TcpListener) -> io::Result<Bound> {
    listener.set_nonblocking(true)?;
    let address = format!("http://{}", listener.local_addr()?);
    Ok(Bound {
        socket: Socket::Tcp(listener),
        address,
        owner: Owner::Us,
        file: None,
    })
}

fn bind_unix(path: &Path) -> Result<Bound, ListenError> {
    let address = format!("unix:{}", path.display());
    let failed = |cause| ListenError::Bind {
        address: address.clone(),
        cause,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.into()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(ListenError::InUse { address }),
        // Nobody answers: a process that was killed left it behind.
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(absent) if absent.kind() == ErrorKind::NotFound => {}
        Err(cause) => return Err(failed(cause)),
    }
    // The mode must be right from the first moment, and no other thread runs yet that the mask could hit.
    let before = umask(Mode::from_raw_mode(0o117));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
        .and_then(|listener| unix_bound(listener, address.clone(), Some(SocketFile(path.into()))))
        .map_err(failed)
}

fn unix_bound(
    listener: UnixListener,
    address: String,
    file: Option<SocketFile>,
) -> io::Result<Bound> {
    listener.set_nonblocking(true)?;
    Ok(Bound {
        socket: Socket::Unix(listener),
        address,
        owner: Owner::Us,
        file,
    })
}

/// The file of a Unix socket; dropping it removes the file.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());

        let bound = bind_unix(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert!(matches!(bind_unix(&path), Err(ListenError::InUse { .. })));

        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "keep").unwrap();
        assert!(matches!(bind_unix(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"keep");
    }

    #[test]
    fn a_connection_passed_in_place_of_a_listener_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listens(&listener).unwrap();
        let refused = listens(&connection).unwrap_err().to_string();
        assert!(refused.contains("Accept=no"), "{refused}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let Socket::Tcp(listener) = &first.socket else {
            unreachable!()
        };
        let address = listener.local_addr().unwrap();
        let Err(error) = bind_tcp(address) else {
            panic!("{address} was bound twice")
        };
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(matches!(error, ListenError::InUse { .. }));
    }
}
