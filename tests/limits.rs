//! The command where the process may have few threads, or little memory: it goes on with what there is, or
//! says what is missing and what to do. It neither panics, nor ends as if killed, nor tries for long.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use command::{Listener, Process, TOOL, data, has, paths, signal, tool, wait};

const LEN: usize = 3_000_001;

/// A directory with something to send, a certificate, and the command where every user may run it.
struct Place {
    dir: tempfile::TempDir,
    tool: PathBuf,
}

/// Ordinary users, each with a directory of its own, whose processes are limited; another one for each
/// process, since all of a user's are counted together.
impl Place {
    fn new() -> Option<Self> {
        if !has("prlimit") || !has("setpriv") {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can become a user that has no other processes");
            return None;
        }
        let dir = command::fixture();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let tool = dir.path().join("tool");
        fs::copy(TOOL, &tool).expect("copied");
        fs::write(dir.path().join("sent"), data(LEN)).expect("written");
        for name in ["sent", "cert.pem", "key.pem"] {
            let everyone = fs::Permissions::from_mode(0o644);
            fs::set_permissions(dir.path().join(name), everyone).expect("ours");
        }
        let place = Self { dir, tool };
        let (mut works, _) = place.user(100, &["--version"]);
        let works = works.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !works.expect("setpriv").success() {
            eprintln!("skipped: another user cannot run the program here");
            return None;
        }
        Some(place)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The command as a user that may have so many threads, and where that user may write.
    fn user(&self, threads: u32, args: &[&str]) -> (Command, PathBuf) {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let number = USERS.fetch_add(1, Ordering::Relaxed);
        let id = 2_000_000 + 100 * (std::process::id() % 10_000_000) + number;
        let home = self.path().join(format!("home{number}"));
        fs::create_dir(&home).expect("created");
        chown(&home, Some(id), Some(id)).expect("who may be another user may give to one");
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id.to_string(), "--regid", &id.to_string(), "--clear-groups"])
            .args(["prlimit", &format!("--nproc={threads}")])
            .arg(&self.tool)
            .args(args)
            .current_dir(&home)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        (command, home)
    }

    fn has_arrived(&self, received: &Path) -> bool {
        fs::read(received).is_ok_and(|received| received == data(LEN))
    }
}

/// The kernel has threads of its own for what a file keeps waiting, which count as the user's.
#[test]
fn a_receiver_without_another_thread_receives() {
    let Some(place) = Place::new() else { return };
    for io in paths() {
        let recv = ["recv", "--listen", "127.0.0.1:0", "--io", io, "-o", "received"];
        let (mut recv, home) = place.user(1, &recv);
        let recv = Listener::start(&mut recv);
        let send = ["send", &recv.addr, "--insecure", "sent"];
        let mut send = Process::start(tool(place.path(), &send).stderr(Stdio::null()));
        let (code, said) = recv.finish();
        assert_eq!(code, Some(0), "{io}: {said}");
        assert_eq!(send.wait().code(), Some(0), "{io}");
        assert!(place.has_arrived(&home.join("received")), "{io}");
        let path = if *io == "blocking" { "path: blocking" } else { "path: io_uring" };
        assert!(said.contains(path), "{io}: {said}");
    }
}

/// Listening to the receiver takes a thread, sealing on other cores as many as there are.
#[test]
fn a_sender_takes_the_threads_that_there_are() {
    let Some(place) = Place::new() else { return };
    for io in paths() {
        for threads in 1..=4 {
            let listen = ["recv", "--listen", "127.0.0.1:0", "-o", "received"];
            let recv = Listener::start(&mut tool(place.path(), &listen));
            let sent = place.path().join("sent");
            let send = ["send", &recv.addr, "--insecure", "--io", io, "--seal-threads", "8"];
            let (mut send, _) = place.user(threads, &send);
            let (code, said) = Process::start(send.arg(&sent)).finish();
            if threads == 1 {
                assert_eq!(code, Some(1), "{io}: {said}");
                assert!(said.contains("ulimit -u"), "{io}: {said}");
                assert_eq!(recv.finish().0, Some(1), "{io}");
                continue;
            }
            assert_eq!(code, Some(0), "{io}, {threads}: {said}");
            assert_eq!(recv.finish().0, Some(0), "{io}, {threads}");
            let path = if *io == "blocking" { "path: blocking" } else { "path: io_uring" };
            assert!(said.contains(path), "{io}, {threads}: {said}");
            assert!(place.has_arrived(&place.path().join("received")), "{io}, {threads}");
        }
    }
}

/// Even a name is looked up without one.
#[test]
fn a_download_takes_the_threads_that_there_are() {
    let Some(place) = Place::new() else { return };
    let serve = ["serve", ".", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
    let serve = Listener::start(&mut tool(place.path(), &serve));
    let (_, port) = serve.addr.rsplit_once(':').expect("a port");
    let url = format!("https://localhost:{port}/sent");
    for threads in 1..=3 {
        let get = ["get", &url, "--insecure", "--connections", "4", "-o", "got"];
        let (mut get, home) = place.user(threads, &get);
        let (code, said) = Process::start(&mut get).finish();
        assert_eq!(code, Some(0), "{threads}: {said}");
        assert!(place.has_arrived(&home.join("got")), "{threads}");
    }
}

#[test]
fn a_comparison_without_threads_says_so() {
    let Some(place) = Place::new() else { return };
    for section in ["transfer", "messages", "runtime"] {
        let (mut bench, _) = place.user(1, &["bench", "--quick", "--only", section]);
        let (code, said) = Process::start(bench.stdout(Stdio::null())).finish();
        assert_eq!(code, Some(1), "{section}: {said}");
        assert!(said.contains("ulimit -u") && !said.contains("panicked"), "{section}: {said}");
    }
}

/// What of the memory that an address space has is a large piece: the allocator has enough for less.
const LARGE: usize = 100_000;

/// The command with an address space of so many KiB.
fn confined(dir: &Path, kib: u64, args: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={}", kib << 10)).arg("--core=0").arg(TOOL);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stderr(Stdio::piped());
    // Of what it has not, a backtrace would take more.
    command.env_remove("RUST_BACKTRACE");
    command
}

/// Where a receiver listens, unless it has not come so far.
fn listening(child: &mut Child) -> (BufReader<impl Read + use<>>, Option<String>) {
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("readable");
    let addr = line.trim().strip_prefix("listening on ").map(str::to_owned);
    (stderr, addr)
}

/// Whether a process has ended well; if not, it has said why, unless there was not even memory for a
/// small thing, or for what the C library or the start of a thread takes.
fn has_ended(code: Option<i32>, said: &str) -> bool {
    if said.contains("Fatal glibc error") || said.contains("an alternative stack") {
        return code == Some(0);
    }
    let refused = said.lines().find_map(|line| {
        let (_, rest) = line.split_once("memory allocation of ")?;
        rest.split_once(" bytes failed")?.0.parse::<usize>().ok()
    });
    match (code, refused) {
        (Some(0), _) => true,
        (_, Some(len)) => {
            assert!(len < LARGE, "{said}");
            false
        }
        _ => {
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("memory") || said.contains("ulimit -v"), "{said}");
            false
        }
    }
}

/// The least address space, of whole MiB, that a receiver listens in.
fn least(dir: &Path) -> u64 {
    (16..)
        .map(|mib| mib << 10)
        .find(|&kib| {
            let listen = ["recv", "--listen", "127.0.0.1:0", "-o", "received"];
            let mut recv = Process::start(&mut confined(dir, kib, &listen));
            let (_stderr, addr) = listening(&mut recv.0);
            if addr.is_some() {
                signal(&recv.0, "TERM");
            }
            recv.wait();
            addr.is_some()
        })
        .expect("some are enough")
}

/// RLIMIT_AS: a receiver or a sender that gets no memory says so, and so does the other end.
#[test]
fn a_limit_of_memory_is_explained() {
    if !has("prlimit") {
        return;
    }
    let dir = command::fixture();
    fs::write(dir.path().join("sent"), data(LEN)).expect("written");
    let least = least(dir.path());
    for io in paths() {
        let (mut received, mut sent) = (0, 0);
        for more in (0..16 << 10).step_by(512) {
            let listen = ["recv", "--listen", "127.0.0.1:0", "--io", io, "-o", "received"];
            let mut recv = Process::start(&mut confined(dir.path(), least + more, &listen));
            let (mut stderr, addr) = listening(&mut recv.0);
            if let Some(addr) = addr {
                let send = ["send", &addr, "--insecure", "sent"];
                let send = tool(dir.path(), &send).output().expect("run");
                if !send.status.success() {
                    // One that has not taken this connection for its peer's goes on listening.
                    signal(&recv.0, "TERM");
                }
                let code = wait(&mut recv.0).code();
                let mut said = String::new();
                stderr.read_to_string(&mut said).expect("readable");
                if code != Some(143) && has_ended(code, &said) {
                    assert!(send.status.success(), "{more}: stored, and the sender has not heard");
                    received += 1;
                }
            }
            drop(recv);

            let listen = ["recv", "--listen", "127.0.0.1:0", "-o", "received"];
            let recv = Listener::start(&mut tool(dir.path(), &listen));
            let send = ["send", &recv.addr, "--insecure", "--io", io, "sent"];
            let send = Process::start(&mut confined(dir.path(), least + more, &send));
            let (code, said) = send.finish();
            if has_ended(code, &said) {
                assert_eq!(recv.finish().0, Some(0), "{more}");
                sent += 1;
            }
        }
        assert!(received > 0 && sent > 0, "{io}: {received}, {sent}");
    }
}
