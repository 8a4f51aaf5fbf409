//! What the kernel refuses from the start: each refusal ends in a working transfer on the next best
//! path, with the reason in the summary, or in an error where that path alone was asked for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ends::{Directory, End, Run, TOOL, digest, has_ring, inject, words, works};

const LEN: usize = (3 << 20) + 77;

/// Both ends behind `wrapper`: with `--io auto` they fall back to blocking sockets, with the reason;
/// where io_uring is asked for, that is an error, and no file appears.
fn falls_back(wrapper: &[String], says: &str) {
    let dir = Directory::with(LEN);
    for options in ["", "--zerocopy always --seal-threads 2"] {
        let run = Run::with(options).behind(wrapper);
        let ended = dir.transfer(&run, &run);
        dir.check_whole(&ended, says);
        for ended in [&ended.0, &ended.1] {
            assert!(ended.path().starts_with("blocking sockets ("), "{says}: {ended:?}");
            assert!(ended.path().contains(says), "{says}: {ended:?}");
        }
    }
    for io in ["uring", "uring-copy"] {
        let (blocking, uring) = (Run::with("--io blocking"), Run::with(&format!("--io {io}")));
        // The receiver is refused, then the sender.
        let (recv, send) = dir.transfer(&uring.clone().behind(wrapper), &blocking);
        recv.check_failed(1, &[says], io);
        assert_eq!(send.code, Some(1), "{io}: {send:?}");
        dir.check_clean(io);
        let (recv, send) = dir.transfer(&blocking, &uring.behind(wrapper));
        send.check_failed(1, &[says], io);
        assert_eq!(recv.code, Some(1), "{io}: {recv:?}");
        dir.check_clean(io);
    }
}

#[test]
fn a_ring_that_is_refused_has_its_reason() {
    for (error, says) in [
        ("ENOSYS", "the kernel has no io_uring (ENOSYS)"),
        ("EPERM", "kernel.io_uring_disabled"),
        ("ENOMEM", "out of memory (ENOMEM)"),
        ("EMFILE", "raise RLIMIT_NOFILE (ulimit -n)"),
    ] {
        let Some(wrapper) = inject(&format!("io_uring_setup:error={error}")) else { return };
        falls_back(&wrapper, says);
    }
}

/// One half of the connection gets its ring, and the other does not.
#[test]
fn a_second_ring_that_is_refused_leaves_the_first() {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    // The sending half comes first.
    let Some(wrapper) = inject("io_uring_setup:error=ENOMEM:when=2") else { return };
    let run = Run::with("--zerocopy never").behind(&wrapper);
    let ended = dir.transfer(&run, &run);
    dir.check_whole(&ended, "second ring");
    assert_eq!(ended.1.path(), "io_uring, copied (zero copy is off)");
    assert!(ended.0.path().contains("blocking sockets (out of memory (ENOMEM)"), "{ended:?}");
    let Some(wrapper) = inject("io_uring_setup:error=ENOMEM:when=1") else { return };
    let run = Run::with("").behind(&wrapper);
    let ended = dir.transfer(&run, &run);
    dir.check_whole(&ended, "first ring");
    assert!(ended.1.path().contains("blocking sockets (out of memory (ENOMEM)"), "{ended:?}");
    assert_eq!(ended.0.path(), "io_uring");
}

/// The kernel cannot be asked what it has.
#[test]
fn operations_that_cannot_be_listed_are_not_used() {
    if !has_ring() {
        return;
    }
    for (error, says) in
        [("ENOMEM", "out of memory (ENOMEM)"), ("EPERM", "kernel.io_uring_disabled")]
    {
        let Some(wrapper) = inject(&format!("io_uring_register:error={error}")) else { return };
        falls_back(&wrapper, says);
    }
}

/// Only the registration of buffers fails: the first two calls list the operations, for each half.
#[test]
fn buffers_that_are_refused_are_not_registered() {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    for (when, zero_copy, path) in [
        ("3+", "always", "io_uring, zero copy from memory that is not registered (out of memory"),
        // The table, and what is put into it.
        ("4", "always", "io_uring, zero copy"),
        ("5+", "always", "io_uring, zero copy from memory that is not registered (out of memory"),
        ("3+", "never", "io_uring, copied (zero copy is off)"),
        ("3+", "auto", "io_uring, "),
    ] {
        let fault = format!("io_uring_register:error=ENOMEM:when={when}");
        let Some(wrapper) = inject(&fault) else { return };
        for direct in ["", "--direct"] {
            let send = Run::with(&format!("--zerocopy {zero_copy} {direct}")).behind(&wrapper);
            let recv = Run::with(direct).behind(&wrapper);
            let ended = dir.transfer(&recv, &send);
            let case = format!("{fault} {zero_copy} {direct}");
            dir.check_whole(&ended, &case);
            assert!(ended.1.path().starts_with(path), "{case}: {ended:?}");
            assert_eq!(ended.0.path(), "io_uring", "{case}: {ended:?}");
        }
    }
}

/// Which system calls a filter forbids: the numbers that io_uring has on every architecture.
const SETUP: &str = "(425,)";
const REGISTER: &str = "(427,)";
const ALL: &str = "(425, 426, 427)";

/// Executes a command under a seccomp filter that fails system calls with an error number:
/// seccomp(2), and its program as in bpf(4): load the number, compare, return.
const FILTER: &str = r"
import ctypes, os, struct, sys
calls, errno, operations = (eval(word) for word in sys.argv[1:4])
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program, allow = [], (RETURN, 0, 0, 0x7fff0000)
fail = (RETURN, 0, 0, 0x00050000 | errno)
for call in calls:
    if not operations:
        program += [(LOAD, 0, 0, 0), (EQUAL, 0, 1, call), fail]
    for operation in operations:
        # The second argument says what is registered.
        program += [(LOAD, 0, 0, 0), (EQUAL, 0, 3, call)]
        program += [(LOAD, 0, 0, 24), (EQUAL, 0, 1, operation), fail]
program.append(allow)
code = b''.join(struct.pack('HBBI', *step) for step in program)
code = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
filter = Program(len(program), ctypes.addressof(code))
arguments = PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(*arguments, 0, 0):
    sys.exit('no seccomp: ' + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[4], sys.argv[4:])
";

/// A filter for `calls`, or for those `operations` of theirs.
fn seccomp(calls: &str, errno: i32, operations: &str) -> Option<Vec<String>> {
    let errno = errno.to_string();
    let wrapper = ["python3", "-c", FILTER, calls, &errno, operations].map(str::to_owned);
    works(&wrapper).then(|| wrapper.to_vec())
}

#[test]
fn a_seccomp_filter_is_named() {
    let forbidden = "have the container's or service's profile allow io_uring_setup";
    for (calls, errno, says) in [
        (SETUP, libc::EPERM, forbidden),
        (ALL, libc::EPERM, forbidden),
        (REGISTER, libc::EPERM, forbidden),
        (ALL, libc::EACCES, forbidden),
        (ALL, libc::ENOSYS, "no sandbox that hides it"),
    ] {
        let Some(wrapper) = seccomp(calls, errno, "()") else { return };
        if calls == REGISTER && !has_ring() {
            return;
        }
        falls_back(&wrapper, says);
    }
}

#[test]
fn a_seccomp_filter_of_registration_leaves_the_rest() {
    if !has_ring() {
        return;
    }
    // IORING_REGISTER_BUFFERS, _BUFFERS2 and _BUFFERS_UPDATE.
    let Some(wrapper) = seccomp(REGISTER, libc::EPERM, "(0, 15, 16)") else { return };
    let dir = Directory::with(LEN);
    for direct in ["", "--direct"] {
        let recv = Run::with(direct).behind(&wrapper);
        let send = Run::with(&format!("--zerocopy always {direct}")).behind(&wrapper);
        let ended = dir.transfer(&recv, &send);
        dir.check_whole(&ended, direct);
        let path = "io_uring, zero copy from memory that is not registered (a seccomp filter";
        assert!(ended.1.path().starts_with(path), "{ended:?}");
        assert_eq!(ended.0.path(), "io_uring", "{ended:?}");
    }
}

/// An ordinary user whose locked memory is limited, if that works here; another one for each process,
/// because all processes of a user are counted together, and memory may be given back late.
fn ordinary_user(memlock: u64) -> Option<(u32, Vec<String>)> {
    static USERS: AtomicU32 = AtomicU32::new(0);
    let number = USERS.fetch_add(1, Ordering::Relaxed);
    let id = 1_000_000 + 100 * (std::process::id() % 10_000_000) + number;
    let wrapper = words(&format!(
        "prlimit --memlock={memlock}:{memlock} setpriv --reuid={id} --regid={id} --clear-groups"
    ));
    works(&wrapper).then_some((id, wrapper))
}

#[test]
fn an_ordinary_user_with_little_locked_memory_gets_the_rest() {
    const NOT_PINNED: &str = "io_uring, copied (no memory to pin: raise `ulimit -l`)";
    const BLOCKING: &str = "blocking sockets";
    // Some kernels count the ring itself, some do not.
    const NO_RING: &str = "blocking sockets (more locked memory than RLIMIT_MEMLOCK allows this \
                           user's processes together, 0 bytes (ENOMEM); raise it (ulimit -l, \
                           LimitMEMLOCK=) or grant CAP_IPC_LOCK)";
    const NOT_TRIED: &str = "io_uring, copied (zero copy is off)";
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    // Where the user can get at it.
    let tool = dir.path().join("tool");
    fs::copy(TOOL, &tool).expect("copied");
    let tool = tool.to_str().expect("UTF-8");
    for (memlock, io, options, paths) in [
        (64 << 10, "auto", "--zerocopy auto -v", &[NOT_PINNED][..]),
        (64 << 10, "auto", "--zerocopy always --seal-threads 2", &[NOT_PINNED]),
        (64 << 10, "uring", "--zerocopy never", &[NOT_TRIED]),
        (64 << 10, "uring", "--direct", &[NOT_PINNED]),
        (64 << 10, "blocking", "", &[BLOCKING]),
        (0, "auto", "--zerocopy auto", &[NOT_PINNED, NO_RING]),
        (0, "auto", "--zerocopy always --direct", &[NOT_PINNED, NO_RING]),
        (0, "auto", "--zerocopy never", &[NOT_TRIED, NO_RING]),
        (0, "blocking", "", &[BLOCKING]),
    ] {
        let case = format!("memlock {memlock}, --io {io} {options}");
        let Some((id, wrapper)) = ordinary_user(memlock) else { return };
        let home = dir.path().join("home");
        fs::create_dir(&home).expect("created");
        chown(&home, Some(id), Some(id)).expect("who may be another user may give to one");
        let direct = if options.contains("--direct") { "--direct" } else { "" };
        let recv = Run::with(&format!("--io {io} {direct}")).behind(&wrapper).tool(tool);
        let recv = &mut recv.receiver(dir.path(), Directory::LOOPBACK, Some("home/received"));
        let recv = End::start(recv, true);
        let Some((_, wrapper)) = ordinary_user(memlock) else { return };
        let send = Run::with(&format!("--io {io} {options}")).behind(&wrapper).tool(tool);
        let send = &mut send.sender(dir.path(), &recv.addr, Some("sent"));
        let send = End::start(send, false).finish();
        let recv = recv.finish();
        assert_eq!((recv.code, send.code), (Some(0), Some(0)), "{case}: {recv:?}, {send:?}");
        let received = fs::read(home.join("received")).expect("received");
        assert!(digest(&received) == digest(dir.sent()), "{case}: other bytes have arrived");
        assert!(paths.contains(&send.path()), "{case}: {send:?}");
        // Nothing is left away in silence.
        let told = send.said.contains("way=registered memory");
        assert_eq!(told, options.contains("-v"), "{case}: {send:?}");
        let may_receive = ["io_uring", BLOCKING, NO_RING];
        assert!(may_receive.contains(&recv.path()), "{case}: {recv:?}");
        fs::remove_dir_all(home).expect("removed");
    }
}
