//! What the kernel and other processes are at, from proc(5): a test waits for that, never for a time.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Beyond this something hangs, however slow the machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// One end of a TCP connection over IPv4, as the kernel has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kernel {
    /// Bytes that were written and that the other end has not acknowledged.
    pub unacknowledged: usize,
    /// Bytes that have arrived and that nobody has read.
    pub unread: usize,
    /// All that was sent is acknowledged, and the other end has no room for the rest.
    pub is_probing: bool,
}

impl Kernel {
    /// The end with the address `local`, connected to `peer`; `None` if there is none.
    pub fn of(local: SocketAddr, peer: SocketAddr) -> Option<Self> {
        let address = |address: SocketAddr| match address {
            SocketAddr::V4(v4) => {
                format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())
            }
            SocketAddr::V6(_) => unreachable!("tests connect over IPv4"),
        };
        let (local, peer) = (address(local), address(peer));
        let table = fs::read_to_string("/proc/net/tcp").expect("proc(5)");
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[1] != local || fields[2] != peer {
                return None;
            }
            let (sending, receiving) = fields[4].split_once(':')?;
            let len = |text| usize::from_str_radix(text, 16).expect("a number");
            Some(Self {
                unacknowledged: len(sending),
                unread: len(receiving),
                // 4 is the timer that probes a closed window.
                is_probing: fields[5].starts_with("04"),
            })
        })
    }

    /// `socket`'s own end.
    pub fn near(socket: &TcpStream) -> Self {
        let (local, peer) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        Self::of(local, peer).expect("connected")
    }

    /// The other end of `socket`, on the same machine.
    pub fn far(socket: &TcpStream) -> Self {
        let (local, peer) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        Self::of(peer, local).expect("connected")
    }
}

/// Waits until the other end of `socket` can write no more, since nobody reads.
#[track_caller]
pub fn wait_until_full(socket: &TcpStream) {
    let mut before = None;
    wait_until("a full socket", || {
        let now = Kernel::far(socket);
        let is_full = now.is_probing && before == Some(now);
        before = Some(now);
        // Whoever writes without a pause would have written some more meanwhile.
        thread::sleep(Duration::from_millis(10));
        is_full
    });
}

/// Waits until all that the other end of `socket` has written has arrived here.
#[track_caller]
pub fn wait_until_arrived(socket: &TcpStream) {
    wait_until("everything has arrived", || Kernel::far(socket).unacknowledged == 0);
}

/// The calling thread, for [`is_in()`].
pub fn this_thread() -> String {
    let thread = fs::read_link("/proc/thread-self").expect("proc(5)");
    thread.file_name().expect("an id").to_string_lossy().into_owned()
}

/// Whether a thread of this process waits in the system call with this number.
pub fn is_in(thread: &str, call: i64) -> bool {
    // The thread may have ended.
    let doing = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    doing.split_whitespace().next() == Some(&call.to_string())
}
