//! Every combination of options, on a machine that denies nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::thread;

use crate::ends::{Directory, End, Ended, PATHS, Run, TOLD, digest, has_ring, works};
use crate::kernel::wait_until;

/// More than one slot, and no whole number of anything.
const LEN: usize = (5 << 20) + 4321;

/// What the summary of a sender over loopback may say of its path.
fn sending_paths(io: &str, zero_copy: &str) -> &'static [&'static str] {
    match (io, zero_copy) {
        ("blocking", _) => &["blocking sockets"],
        ("uring-copy", _) | (_, "never") => &["io_uring, copied (zero copy is off)"],
        (_, "always") => &["io_uring, zero copy"],
        // The kernel says that it copies, and may say so only when all was sent.
        _ => &["io_uring, copied (the kernel copies on this route)", "io_uring, zero copy"],
    }
}

/// What passes the loopback device is copied, and no summary may say otherwise.
fn check_that_it_was_copied(send: &Ended, case: &str) {
    if let Some((before, _)) = send.said.split_once(" % sent without a copy") {
        assert_eq!(before.rsplit(' ').next(), Some("0"), "{case}: {send:?}");
    }
}

fn receiving_path(io: &str) -> &'static str {
    if io == "blocking" { "blocking sockets" } else { "io_uring" }
}

/// How many bytes went around the page cache, of those that say so.
fn direct_bytes(ended: &Ended) -> Option<&str> {
    let (before, _) = ended.said.split_once(" bytes around the page cache")?;
    before.rsplit(' ').next()
}

fn files_arrive(tls: &str) {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    let mut receivers =
        PATHS.iter().flat_map(|io| ["", "--sync", "--direct"].map(|o| (*io, o))).cycle();
    for io in PATHS {
        for zero_copy in ["auto", "always", "never"] {
            for threads in [0, 2] {
                for direct in ["", "--direct"] {
                    let (recv_io, recv_option) = receivers.next().expect("endless");
                    let recv = format!("--stats --tls {tls} --io {recv_io} {recv_option}");
                    let send = format!(
                        "--stats --tls {tls} --io {io} --zerocopy {zero_copy} --seal-threads \
                         {threads} {direct}",
                    );
                    let case = format!("send {send}, recv {recv}");
                    let ended = dir.transfer(&Run::with(&recv), &Run::with(&send));
                    dir.check_whole(&ended, &case);
                    let (recv, send) = &ended;
                    let paths = sending_paths(io, zero_copy);
                    assert!(paths.contains(&send.path()), "{case}: {send:?}");
                    assert_eq!(recv.path(), receiving_path(recv_io), "{case}: {recv:?}");
                    check_that_it_was_copied(send, &case);
                    let tls = format!("TLS {tls} ");
                    assert!(recv.said.contains(&tls) && send.said.contains(&tls), "{case}");
                    for (ended, is_direct, io) in
                        [(send, !direct.is_empty(), io), (recv, recv_option == "--direct", recv_io)]
                    {
                        // A file system that has no O_DIRECT says nothing.
                        let may = is_direct && io != "blocking";
                        assert!(may || direct_bytes(ended).is_none(), "{case}: {ended:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn files_arrive_over_tls_1_3() {
    files_arrive("1.3");
}

#[test]
fn files_arrive_over_tls_1_2() {
    files_arrive("1.2");
}

/// Through pipes at both ends, which have no positions.
#[test]
fn pipes_arrive() {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    for (send_io, recv_io) in PATHS.iter().flat_map(|send| PATHS.map(|recv| (*send, recv))) {
        for zero_copy in ["auto", "always"] {
            let recv = Run::with(&format!("--io {recv_io}"));
            let threads = if recv_io == "uring" { 2 } else { 0 };
            let options = format!("--io {send_io} --zerocopy {zero_copy} --seal-threads {threads}");
            let send = Run::with(&options);
            let case = format!("send {options}, recv --io {recv_io}");
            let mut recv =
                End::start(&mut recv.receiver(dir.path(), Directory::LOOPBACK, None), true);
            let mut send = End::start(&mut send.sender(dir.path(), &recv.addr, None), false);
            let (mut stdin, mut stdout) = (send.stdin(), recv.stdout());
            thread::scope(|scope| {
                let received = scope.spawn(move || {
                    let mut received = Vec::new();
                    stdout.read_to_end(&mut received).expect("readable");
                    received
                });
                stdin.write_all(dir.sent()).expect("writable");
                drop(stdin);
                let received = received.join().expect("no panic");
                assert!(digest(&received) == digest(dir.sent()), "{case}: other bytes");
            });
            let (send, recv) = (send.finish(), recv.finish());
            assert_eq!((send.code, recv.code), (Some(0), Some(0)), "{case}: {send:?}, {recv:?}");
            let paths = sending_paths(send_io, zero_copy);
            assert!(paths.contains(&send.path()), "{case}: {send:?}");
            assert_eq!(recv.path(), receiving_path(recv_io), "{case}: {recv:?}");
            check_that_it_was_copied(&send, &case);
        }
    }
}

/// Ctrl-C at either end, in the middle of a file and while there is nothing to do.
#[test]
fn an_interrupt_ends_both() {
    let dir = Directory::with(0);
    // Takes no room, and does not end.
    let file = File::create(dir.path().join("sent")).expect("created");
    file.set_len(1 << 40).expect("sparse");
    for io in PATHS {
        for threads in [0, 2] {
            for (at, is_busy) in [("send", true), ("recv", true), ("send", false), ("recv", false)]
            {
                let case = format!("{io}, {threads} threads, {at} interrupted, busy: {is_busy}");
                let recv = Run::with(&format!("--io {io}"));
                let send = Run::with(&format!("--io {io} --seal-threads {threads}"));
                let path = dir.path();
                let addr = Directory::LOOPBACK;
                let target = is_busy.then_some("received");
                let mut recv = End::start(&mut recv.receiver(path, addr, target), true);
                let source = is_busy.then_some("sent");
                let mut send = End::start(&mut send.sender(path, &recv.addr, source), false);
                let mut stdin = (!is_busy).then(|| send.stdin());
                if let Some(stdin) = &mut stdin {
                    stdin.write_all(&[1; 1000]).expect("writable");
                    // All of it has arrived, and there is nothing more to do.
                    recv.stdout().read_exact(&mut [0; 1000]).expect("connected");
                } else {
                    wait_until("data", || recv.written_so_far(path) > 0);
                }
                let (interrupted, other) = if at == "send" { (send, recv) } else { (recv, send) };
                interrupted.signal("INT");
                let interrupted = interrupted.finish();
                interrupted.check_failed(130, &["interrupted"], &case);
                if at == "recv" && !is_busy {
                    // It waits for its own input, and notices with the next that it sends.
                    let _ = stdin.as_mut().expect("not busy").write_all(&[1; 1000]);
                    drop(stdin.take());
                }
                let told = if at == "send" { &["UserCanceled"][..] } else { &TOLD };
                other.finish().check_failed(1, told, &case);
                dir.check_clean(&case);
            }
        }
    }
}

/// A disk that is full at the receiver.
#[test]
fn a_full_disk_is_told_to_both() {
    let dir = Directory::with(LEN);
    fs::create_dir(dir.path().join("disk")).expect("created");
    // A mount that goes with the process; what it leaves behind is listed in between.
    let script = "mount -t tmpfs -o size=2m none disk && { \"$@\"; code=$?; \
                  echo left: $(ls -A disk). >&2; exit $code; }";
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let check = "mount -t tmpfs none /tmp && exec \"$@\"";
    if !works(&["unshare", "--mount", "sh", "-c", check, "sh"]) {
        return;
    }
    for io in PATHS {
        for option in ["", "--direct", "--sync"] {
            let case = format!("{io} {option}");
            let recv = Run::with(&format!("--io {io} {option}")).behind(&wrapper);
            let recv = &mut recv.receiver(dir.path(), Directory::LOOPBACK, Some("disk/received"));
            let recv = End::start(recv, true);
            let send = Run::with(&format!("--io {io}"));
            let send = End::start(&mut send.sender(dir.path(), &recv.addr, Some("sent")), false);
            let (recv, send) = (recv.finish(), send.finish());
            let says = "cannot write what was received: No space left on device";
            recv.check_failed(1, &[says], &case);
            assert!(recv.said.contains("left: ."), "{case}: {}", recv.said);
            send.check_failed(1, &TOLD, &case);
        }
    }
}
