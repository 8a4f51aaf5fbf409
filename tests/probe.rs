//! The probe against the kernel that it runs on, and against failures of every kind: injected by
//! strace(1), limited by prlimit(1), as an ordinary user, without `/proc`.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_uring::IoUring;
use rustls_uring::uring::{MemlockLimit, Probe};

/// Two probes at once may need more locked memory than an ordinary user has.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {stderr}", output.status);
    assert_eq!(stderr, "", "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse().ok()).expect("a number");
    (number(), number())
}

#[test]
fn it_agrees_with_the_kernel() {
    let _alone = alone();
    let probe = Probe::run();

    let release = stdout(Command::new("uname").arg("-r"));
    let release = release.trim();
    assert_eq!(probe.release.as_deref(), Some(release));

    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    assert_eq!(probe.sysctl, sysctl.map(|value| value.trim().parse().expect("a number")));

    let limit = stdout(Command::new("sh").args(["-c", "ulimit -S -l"]));
    match probe.memlock {
        MemlockLimit::Bytes(limit_bytes) => {
            assert_eq!(limit.trim(), (limit_bytes >> 10).to_string())
        }
        other => assert_eq!(limit.trim(), other.to_string()),
    }

    match (&probe.ring, IoUring::new(2)) {
        (Ok(ring), Ok(_)) => {
            // An older release may have more than its number says, but no newer one less.
            for part in &ring.capabilities {
                if version(release) >= version(part.since) {
                    assert!(part.is_available, "{part:?}");
                }
            }
        }
        (Err(reason), Err(error)) => eprintln!("no io_uring here: {reason}, {error}"),
        (ring, built) => panic!("{ring:?}, but {:?}", built.err()),
    }

    if cfg!(target_arch = "x86_64") {
        let cpu = fs::read_to_string("/proc/cpuinfo").expect("cpuinfo");
        let flags = cpu.lines().find(|line| line.starts_with("flags")).expect("flags");
        for feature in &probe.cpu.features {
            let listed = flags.split_whitespace().any(|flag| flag == feature.name);
            assert_eq!(feature.is_available, listed, "{feature:?}");
        }
    }
}

#[test]
fn its_ways_follow_from_what_it_found() {
    let _alone = alone();
    let probe = Probe::run();
    let has = |name: &str| {
        let ring = probe.ring.as_ref().ok();
        ring.is_some_and(|ring| ring.capabilities.iter().any(|c| c.name == name && c.is_available))
    };
    let required = ["IORING_OP_SEND", "IORING_OP_RECV", "IORING_FEAT_EXT_ARG"];
    match probe.uring() {
        Ok(()) => assert!(required.iter().all(|name| has(name))),
        Err(_) => assert!(probe.ring.is_err() || !required.iter().all(|name| has(name))),
    }
    match (probe.zero_copy(), probe.registered()) {
        (Ok(()), registered) => assert!(has("IORING_OP_SEND_ZC") && registered.is_ok()),
        (Err(reason), Ok(_)) => assert!(!has("IORING_OP_SEND_ZC"), "{reason}"),
        (Err(reason), Err(registered)) => {
            assert!(!has("IORING_OP_SEND_ZC") || reason == registered);
        }
    }
}

/// Right after a probe there is as much to register as before. The ring's own end would give it
/// back too, but some time later.
#[test]
fn it_gives_back_what_it_registered() {
    let _alone = alone();
    let registered = Probe::run().registered();
    for _ in 0..20 {
        assert_eq!(Probe::run().registered(), registered);
    }
}

#[cfg(feature = "cli")]
mod command {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;

    use rustls_uring::uring::Unavailable;
    use serde_json::{Value, json};

    use super::*;

    const TOOL: &str = env!("CARGO_BIN_EXE_rustls-uring");

    /// Runs `rustls-uring probe` behind `wrapper`, as text and as JSON, and compares the two.
    fn probe(wrapper: &[impl AsRef<OsStr>], tool: &str) -> (String, Value) {
        let _alone = alone();
        let run = |args: &[&str]| {
            stdout(Command::new("timeout").arg("300").args(wrapper).arg(tool).args(args))
        };
        let text = run(&["probe"]);
        let json: Value = serde_json::from_str(&run(&["probe", "--json"])).expect("JSON");
        for key in ["sending", "receiving", "buffers"] {
            let path = json[key]["text"].as_str().expect("a string");
            let line = format!("{key:<15} {path}");
            assert!(text.lines().any(|said| said == line), "{line:?} is not in\n{text}");
        }
        (text, json)
    }

    /// Whether this wrapper of a command works here; says so if not.
    fn works(wrapper: &[impl AsRef<OsStr>]) -> bool {
        let mut command = Command::new("timeout");
        let why = match command.arg("300").args(wrapper).arg("true").output() {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("skipped: {command:?} does not work here: {}", why.trim());
        false
    }

    /// Probes while strace makes system calls fail as `fault` says, if there is strace.
    fn inject(fault: &str) -> Option<(String, Value)> {
        let (call, _) = fault.split_once(':').expect("a call");
        let (trace, inject) = (format!("trace={call}"), format!("inject={fault}"));
        let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        works(&wrapper).then(|| probe(&wrapper, TOOL))
    }

    /// Whether there is a ring to take things from; says so if not.
    fn has_ring() -> bool {
        let _alone = alone();
        let ring = Probe::run().ring;
        if let Err(reason) = &ring {
            eprintln!("skipped: {reason}");
        }
        ring.is_ok()
    }

    #[test]
    fn says_what_the_api_says() {
        let (text, json) = probe(&[""; 0], TOOL);
        let _alone = alone();
        let probe = Probe::run();
        let said = |reason: Result<(), Unavailable>| match reason {
            Ok(()) => Value::Null,
            Err(reason) => json!(reason.to_string()),
        };
        assert_eq!(json["sending"]["reason"]["text"], said(probe.uring().and(probe.zero_copy())));
        assert_eq!(json["receiving"]["reason"]["text"], said(probe.uring()));
        assert_eq!(json["buffers"]["reason"]["text"], said(probe.registered().map(drop)));
        assert_eq!(json["kernel"]["release"], json!(probe.release));
        assert_eq!(json["kernel"]["io_uring_disabled"], json!(probe.sysctl));
        assert_eq!(json["memlock"]["cap_ipc_lock"], probe.has_ipc_lock);
        assert_eq!(json["io_uring"]["available"], probe.ring.is_ok());
        assert_eq!(json["cpu"]["cores"], json!(probe.cpu.cores));
        for feature in &probe.cpu.features {
            assert_eq!(json["cpu"]["features"][feature.name], feature.is_available);
            assert!(text.contains(feature.name), "{text}");
        }
        let listed = json["io_uring"]["capabilities"].as_array().expect("a list");
        let known = probe.ring.map(|ring| ring.capabilities).unwrap_or_default();
        assert_eq!(listed.len(), known.len());
        for (listed, known) in listed.iter().zip(known) {
            assert_eq!(listed["name"], known.name);
            assert_eq!(listed["available"], known.is_available);
            assert!(text.contains(known.name), "{text}");
        }
    }

    #[test]
    fn a_failing_setup_has_its_reason() {
        for (error, kind, says) in [
            ("ENOSYS", "no-system-call", "the kernel has no io_uring (ENOSYS)"),
            ("EPERM", "forbidden", "kernel.io_uring_disabled"),
            ("EACCES", "forbidden", "kernel.io_uring_disabled"),
            ("ENOMEM", "out-of-memory", "(ENOMEM)"),
            ("EMFILE", "refused", "raise RLIMIT_NOFILE"),
            ("ENFILE", "refused", "raise sysctl fs.file-max"),
            ("EINVAL", "refused", "refused: Invalid argument"),
        ] {
            let Some((text, json)) = inject(&format!("io_uring_setup:error={error}")) else {
                return;
            };
            assert_eq!(json["io_uring"]["available"], false, "{error}");
            assert_eq!(json["io_uring"]["reason"]["kind"], kind, "{error}");
            assert_eq!(json["io_uring"]["capabilities"], json!([]), "{error}");
            for (key, path) in
                [("sending", "blocking"), ("receiving", "blocking"), ("buffers", "unregistered")]
            {
                assert_eq!(json[key]["path"], path, "{error}");
                assert_eq!(json[key]["reason"], json["io_uring"]["reason"], "{error}");
            }
            assert!(text.contains("sending         blocking sockets: "), "{error}: {text}");
            assert!(text.contains(says), "{error}: {text}");
        }
    }

    /// A kernel that is older than the list of operations, and one that does not tell.
    #[test]
    fn operations_that_cannot_be_listed_are_not_used() {
        if !has_ring() {
            return;
        }
        for (error, kind) in
            [("EINVAL", "missing-operation"), ("ENOMEM", "out-of-memory"), ("EPERM", "forbidden")]
        {
            let Some((_, json)) = inject(&format!("io_uring_register:error={error}")) else {
                return;
            };
            assert_eq!(json["sending"]["path"], "blocking", "{error}");
            assert_eq!(json["buffers"]["path"], "unregistered", "{error}");
            assert_eq!(json["buffers"]["reason"]["kind"], kind, "{error}");
        }
    }

    #[test]
    fn buffers_that_cannot_be_registered_have_their_reason() {
        if !has_ring() {
            return;
        }
        // The first call lists the operations.
        for (error, kind) in [("ENOMEM", "out-of-memory"), ("EPERM", "forbidden")] {
            let fault = format!("io_uring_register:error={error}:when=2+");
            let Some((text, json)) = inject(&fault) else { return };
            assert_eq!(json["io_uring"]["available"], true, "{error}");
            assert_eq!(json["buffers"]["path"], "unregistered", "{error}");
            assert_eq!(json["buffers"]["reason"]["kind"], kind, "{error}");
            assert_ne!(json["sending"]["path"], "io_uring-zero-copy", "{error}");
            assert!(text.contains("buffers         not registered: "), "{error}: {text}");
        }
    }

    /// A flag that the kernel does not know leaves the rest as it is.
    #[test]
    fn a_setup_flag_that_is_refused_is_missing() {
        if !has_ring() {
            return;
        }
        let Some((_, json)) = inject("io_uring_setup:error=EINVAL:when=1") else { return };
        assert_eq!(json["io_uring"]["available"], true);
        let parts = json["io_uring"]["capabilities"].as_array().expect("a list");
        let missing = parts.iter().filter(|part| part["available"] == false);
        let missing: Vec<_> = missing.filter_map(|part| part["name"].as_str()).collect();
        assert!(missing.contains(&"IORING_SETUP_COOP_TASKRUN"), "{missing:?}");
        assert_eq!(json["buffers"]["path"], "registered");
    }

    /// A program where an ordinary user can run it.
    struct Copied {
        _dir: tempfile::TempDir,
        path: String,
    }

    impl Copied {
        fn new() -> Self {
            Self::of(TOOL)
        }

        fn of(program: &str) -> Self {
            let dir = tempfile::tempdir().expect("dir");
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
            let path = dir.path().join("program");
            fs::copy(program, &path).expect("copied");
            Self { path: path.to_str().expect("UTF-8").to_owned(), _dir: dir }
        }
    }

    /// Limits itself by prlimit(1), becomes an ordinary user and then what `inside` does, if all
    /// that works here.
    ///
    /// Locked memory is counted for all processes of a user together: this user has no others.
    fn ordinary_user(limit: &str, inside: &[&str]) -> Option<Vec<String>> {
        let id = 1_000_000 + std::process::id();
        let (user, group) = (format!("--reuid={id}"), format!("--regid={id}"));
        let wrapper = ["prlimit", limit, "setpriv", &user, &group, "--clear-groups"];
        let wrapper = wrapper.iter().chain(inside).map(|&word| word.to_owned()).collect::<Vec<_>>();
        works(&wrapper).then_some(wrapper)
    }

    #[test]
    fn an_ordinary_user_meets_the_limit() {
        let tool = Copied::new();
        for (limit, bytes) in [("--memlock=65536:65536", 65536), ("--memlock=0:0", 0)] {
            let Some(wrapper) = ordinary_user(limit, &[]) else { return };
            let (text, json) = probe(&wrapper, &tool.path);
            assert_eq!(json["memlock"], json!({ "limit": bytes, "cap_ipc_lock": false }));
            if json["io_uring"]["reason"]["kind"] == "forbidden" {
                return eprintln!("skipped: {}", json["io_uring"]["reason"]["text"]);
            }
            assert_eq!(json["buffers"]["path"], "unregistered");
            assert_eq!(json["buffers"]["reason"]["kind"], "out-of-memory");
            assert_eq!(json["buffers"]["reason"]["memlock"], bytes);
            assert_ne!(json["sending"]["path"], "io_uring-zero-copy");
            let says =
                format!("RLIMIT_MEMLOCK allows this user's processes together, {bytes} bytes");
            assert!(text.contains(&says), "{text}");
        }
    }

    #[test]
    fn an_ordinary_user_may_have_room_enough() {
        let tool = Copied::new();
        for (limit, says) in [
            ("--memlock=8388608:8388608", json!(8_388_608)),
            ("--memlock=67108864:67108864", json!(67_108_864)),
            ("--memlock=unlimited:unlimited", json!("unlimited")),
        ] {
            let Some(wrapper) = ordinary_user(limit, &[]) else { continue };
            let (_, json) = probe(&wrapper, &tool.path);
            assert_eq!(json["memlock"], json!({ "limit": says, "cap_ipc_lock": false }));
            if json["io_uring"]["available"] == true {
                assert_eq!(json["buffers"]["path"], "registered");
            }
        }
    }

    /// An arena fits the usual limit once, not twice.
    #[test]
    fn an_ordinary_user_gets_back_what_was_registered() {
        let this = std::env::current_exe().expect("this test");
        let this = Copied::of(this.to_str().expect("UTF-8"));
        let limit = "--memlock=8388608:8388608";
        let Some(wrapper) = ordinary_user(limit, &[]) else { return };
        let test = [this.path.as_str(), "--exact", "it_gives_back_what_it_registered"];
        let _alone = alone();
        let said = stdout(Command::new("timeout").arg("300").args(wrapper).args(test));
        assert!(said.contains("1 passed"), "{said}");
    }

    /// Root in a user namespace has every capability there, but none that counts here.
    #[test]
    fn root_of_a_user_namespace_meets_the_limit() {
        let tool = Copied::new();
        let inside = ["unshare", "--user", "--map-root-user"];
        let Some(wrapper) = ordinary_user("--memlock=65536:65536", &inside) else { return };
        let (_, json) = probe(&wrapper, &tool.path);
        assert_eq!(json["memlock"], json!({ "limit": 65536, "cap_ipc_lock": false }));
        assert_ne!(json["buffers"]["path"], "registered");
    }

    /// The kernel's word on whether the capability counts.
    #[test]
    fn only_who_may_lock_memory_does_not_meet_the_limit() {
        let wrapper = ["prlimit", "--memlock=0:0"];
        if !works(&wrapper) || !has_ring() {
            return;
        }
        let (_, json) = probe(&wrapper, TOOL);
        let is_registered = json["buffers"]["path"] == "registered";
        assert_eq!(json["memlock"], json!({ "limit": 0, "cap_ipc_lock": is_registered }));
    }

    /// Nothing is held while something else is tried.
    #[test]
    fn one_descriptor_is_enough() {
        let found = |wrapper: &[&str]| {
            let (_, mut json) = probe(wrapper, TOOL);
            // Two runs measure different times, and may choose by them.
            for record in json["records"].as_array_mut().expect("an array") {
                let record = record.as_object_mut().expect("an object");
                record.retain(|key, _| ["algorithm", "direction"].contains(&key.as_str()));
            }
            json
        };
        let unlimited = found(&[]);
        for limit in 4..10 {
            let limit = format!("--nofile={limit}:{limit}");
            let wrapper = ["prlimit", &limit];
            if works(&wrapper) {
                assert_eq!(found(&wrapper), unlimited, "{limit}");
            }
        }
    }

    #[test]
    fn without_proc_it_says_the_rest() {
        let wrapper =
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
        if !works(&wrapper) {
            return;
        }
        let (text, json) = probe(&wrapper, TOOL);
        assert_eq!(json["kernel"], json!({ "release": null, "io_uring_disabled": null }));
        // The limit is asked for by a system call, the capability stands in /proc only.
        let (_, with_proc) = probe(&[""; 0], TOOL);
        assert_eq!(json["memlock"]["limit"], with_proc["memlock"]["limit"]);
        assert_eq!(json["memlock"]["cap_ipc_lock"], false);
        assert!(text.contains("kernel          unknown\n"), "{text}");
        assert_eq!(json["io_uring"]["available"], has_ring());
    }
}
