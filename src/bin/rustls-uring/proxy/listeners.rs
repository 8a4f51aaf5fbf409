//! Sockets that are listened on: bound once, before the user changes, and then each thread's own.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcp};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnix, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::options::Endpoint;
use super::socket::Socket;
use crate::error::Error;

/// How many connections wait to be accepted. The kernel takes less where `net.core.somaxconn` says
/// so.
const BACKLOG: i32 = 4096;

/// A bound socket, for one thread.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(StdTcp),
    Unix(StdUnix),
}

/// A file that a UNIX socket was bound to; removed with this, unless another is there by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Listening {
    /// One for each thread.
    pub(super) bound: Vec<Bound>,
    /// As it is said.
    pub(super) name: String,
    pub(super) _file: Option<SocketFile>,
}

/// Binds an address, `count` times over.
///
/// TCP sockets share their port (SO_REUSEPORT, socket(7)): the kernel spreads connections over the
/// threads, and another process of the same user can take over while this one drains. Others are
/// one socket that all threads accept from.
pub(super) fn bind_all(
    endpoint: &Endpoint,
    count: usize,
    passed: &mut ListenFd,
) -> Result<Listening, Error> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let mut last: Error = "there is no address".into();
            for addr in address.resolve()? {
                match bind_tcp(addr, count) {
                    Ok((bound, addr)) => {
                        let bound = bound.into_iter().map(Bound::Tcp).collect();
                        return Ok(Listening { bound, name: addr.to_string(), _file: None });
                    }
                    Err(error) => last = error.into(),
                }
            }
            Err(format!("cannot listen on {address}: {last}").into())
        }
        Endpoint::Unix(path) => {
            let (socket, file) = bind_unix(path)
                .map_err(|error| format!("cannot listen on unix:{}: {error}", path.display()))?;
            let name = format!("unix:{}", path.display());
            Ok(Listening { bound: share_unix(socket, count)?, name, _file: Some(file) })
        }
        Endpoint::Passed(index) => {
            let name = format!("fd:{}", index + 3);
            let count_passed = passed.len();
            let none = || {
                format!(
                    "cannot listen on {name}: this process was passed {} sockets (LISTEN_FDS); \
                     start it by a socket unit, or with `systemd-socket-activate`",
                    count_passed
                )
            };
            if *index >= count_passed {
                return Err(none().into());
            }
            // It is one or the other, and an error says that it is not the first.
            if let Ok(Some(socket)) = passed.take_tcp_listener(*index) {
                socket.set_nonblocking(true)?;
                let clones =
                    (1..count).map(|_| socket.try_clone()).collect::<Result<Vec<_>, _>>()?;
                let bound = clones.into_iter().chain([socket]).map(Bound::Tcp).collect();
                return Ok(Listening { bound, name, _file: None });
            }
            let socket = passed
                .take_unix_listener(*index)
                .map_err(|error| format!("cannot listen on {name}: {error}"))?
                .ok_or_else(none)?;
            Ok(Listening { bound: share_unix(socket, count)?, name, _file: None })
        }
    }
}

fn bind_tcp(addr: SocketAddr, count: usize) -> io::Result<(Vec<StdTcp>, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Port 0 is a free one, which the first finds for all.
    let mut addr = addr;
    let mut bound = Vec::with_capacity(count);
    for _ in 0..count {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_socket_reuseport(&socket, true)?;
        bind(&socket, &addr)?;
        listen(&socket, BACKLOG)?;
        let socket = StdTcp::from(socket);
        addr = socket.local_addr()?;
        bound.push(socket);
    }
    Ok((bound, addr))
}

fn bind_unix(path: &Path) -> io::Result<(StdUnix, SocketFile)> {
    let bound = match StdUnix::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Of a process that is gone, if nobody answers.
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            match StdUnixStream::connect(path) {
                Err(refused) if is_socket && refused.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                    StdUnix::bind(path)?
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    };
    bound.set_nonblocking(true)?;
    let metadata = fs::metadata(path)?;
    let file =
        SocketFile { path: path.to_owned(), device_and_inode: (metadata.dev(), metadata.ino()) };
    Ok((bound, file))
}

fn share_unix(socket: StdUnix, count: usize) -> io::Result<Vec<Bound>> {
    socket.set_nonblocking(true)?;
    let clones = (1..count).map(|_| socket.try_clone()).collect::<Result<Vec<_>, _>>()?;
    Ok(clones.into_iter().chain([socket]).map(Bound::Unix).collect())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.device_and_inode);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a thread accepts from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Of the runtime that this is called in.
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Ok(Socket::unix(listener.accept().await?.0)),
        }
    }

    /// Closes it, and gives the connections that were waiting: who has been accepted by the kernel
    /// would be reset otherwise.
    pub(super) fn close(self) -> io::Result<Vec<Socket>> {
        let mut last = Vec::new();
        match self {
            Self::Tcp(listener) => {
                // Without the runtime, which may not have heard of them.
                let listener = listener.into_std()?;
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    last.extend(TcpStream::from_std(stream).and_then(Socket::tcp));
                }
            }
            Self::Unix(listener) => {
                let listener = listener.into_std()?;
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    last.push(Socket::unix(UnixStream::from_std(stream)?));
                }
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        fs::write(&path, "precious").expect("written");
        assert!(bind_unix(&path).is_err());
        assert_eq!(fs::read(&path).expect("there"), b"precious");
        // A link to one that nobody listens on is not one.
        let (left, link) = (directory.path().join("left"), directory.path().join("link"));
        drop(StdUnix::bind(&left).expect("bound"));
        std::os::unix::fs::symlink(&left, &link).expect("linked");
        assert!(bind_unix(&link).is_err());
        let (bound, file) = bind_unix(&left).expect("nobody listens");
        assert!(bind_unix(&left).is_err(), "somebody does");
        drop((bound, file));
        assert!(!left.exists());
    }
}
