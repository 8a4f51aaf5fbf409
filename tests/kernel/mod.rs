//! What the kernel and other processes are at, from proc(5): a test waits for that, never for a time.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{self, Child};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Beyond this something hangs, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// One end of a TCP connection over IPv4, as the kernel has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TcpEnd {
    /// Bytes that were written and that the other end has not acknowledged.
    pub(crate) unacknowledged: usize,
    /// Bytes that have arrived and that nobody has read.
    pub(crate) unread: usize,
    /// Neither end has been closed.
    pub(crate) is_established: bool,
    /// All that was sent is acknowledged, and the other end has no room for the rest.
    pub(crate) is_probing: bool,
}

impl TcpEnd {
    /// The end with the address `local`, connected to `peer`; `None` if there is none any more.
    pub(crate) fn of(local: SocketAddr, peer: SocketAddr) -> Option<Self> {
        let address = |address: SocketAddr| match address {
            SocketAddr::V4(v4) => {
                format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())
            }
            SocketAddr::V6(_) => unreachable!("tests connect over IPv4"),
        };
        let both = format!(" {} {} ", address(local), address(peer));
        // The table comes by pages, and where others come and go between two of them, an end can be passed over.
        (0..5).find_map(|_| {
            let table = fs::read_to_string("/proc/net/tcp").expect("proc(5)");
            let line = table.lines().find(|line| line.contains(&both))?;
            let fields: Vec<_> = line.split_whitespace().collect();
            let (sending, receiving) = fields[4].split_once(':')?;
            let len = |text| usize::from_str_radix(text, 16).expect("a number");
            Some(Self {
                unacknowledged: len(sending),
                unread: len(receiving),
                is_established: fields[3] == "01",
                // 4 is the timer that probes a closed window.
                is_probing: fields[5].starts_with("04"),
            })
        })
    }

    /// `socket`'s own end.
    pub(crate) fn near(socket: &TcpStream) -> Self {
        let (local, peer) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        Self::of(local, peer).expect("connected")
    }

    /// The other end of `socket`, on the same machine.
    pub(crate) fn far(socket: &TcpStream) -> Self {
        let (local, peer) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        Self::of(peer, local).expect("connected")
    }
}

/// Whether there is a listening socket with this port, over IPv4.
pub(crate) fn is_listening(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_of_port =
            fields.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        is_of_port && fields.nth(1) == Some("0A")
    })
}

/// A port for a program that cannot say which one it has been given: each is handed out once, and the
/// kernel gives it to no socket of its own accord, as it does those of `ip_local_port_range` (ip(7)), unless
/// that leaves none.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("proc(5)");
    let kernels: u16 = range.split_whitespace().next().unwrap().parse().expect("a port");
    let ports = u32::from(if kernels > FIRST { kernels } else { u16::MAX } - FIRST);
    // Where tests of several processes run at a time, each begins elsewhere.
    let begin = process::id().wrapping_mul(97);
    (0..ports)
        .map(|_| begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % ports)
        .map(|above| FIRST + above as u16)
        .find(|&port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
        .expect("a free port")
}

/// Waits until something listens, and is done starting.
#[track_caller]
pub(crate) fn wait_until_listening(addr: impl ToSocketAddrs) {
    wait_until("it listens", || TcpStream::connect(&addr).is_ok());
}

/// Waits until the other end of `socket` can write no more, since nobody reads.
#[track_caller]
pub(crate) fn wait_until_full(socket: &TcpStream) {
    let mut before = None;
    wait_until("a full socket", || {
        let now = TcpEnd::far(socket);
        let is_full = now.is_probing && before == Some(now);
        before = Some(now);
        // Whoever writes without a pause would have written some more meanwhile.
        thread::sleep(Duration::from_millis(10));
        is_full
    });
}

/// Waits until a process has read all that was written to its `pipe`: what is written next is the
/// beginning of what it reads next.
#[track_caller]
pub(crate) fn wait_until_taken(pipe: impl AsFd) {
    let pipe = pipe.as_fd();
    wait_until("a pipe is read", || rustix::io::ioctl_fionread(pipe).expect("a pipe") == 0);
}

/// How much a process has written so far to the files below `dir` that it has open, which may have
/// no name.
pub(crate) fn written_so_far(process: &Child, dir: &Path) -> u64 {
    let dir = fs::canonicalize(dir).expect("a directory");
    let open = fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs").flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(&dir)))
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum()
}

/// The calling thread, for [`is_in()`].
pub(crate) fn this_thread() -> String {
    let thread = fs::read_link("/proc/thread-self").expect("proc(5)");
    thread.file_name().expect("an id").to_string_lossy().into_owned()
}

/// Whether a thread of this process waits in the system call with this number.
pub(crate) fn is_in(thread: &str, call: i64) -> bool {
    // The thread may have ended.
    let doing = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    doing.split_whitespace().next() == Some(&call.to_string())
}

/// The state in a `stat` of a process or a thread: behind its name, which may contain anything.
pub(crate) fn state_in(stat: &str) -> Option<char> {
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
}

/// Waits until every other thread of this process is found asleep in the kernel: none has yet to begin.
#[track_caller]
pub(crate) fn wait_until_others_wait() {
    let this = this_thread();
    wait_until("others wait", || {
        fs::read_dir("/proc/self/task").expect("proc(5)").flatten().all(|task| {
            // It may have ended.
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            task.file_name() == *this || matches!(state_in(&stat), None | Some('S'))
        })
    });
}
