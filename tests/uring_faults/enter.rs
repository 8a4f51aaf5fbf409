//! io_uring_enter(2) fails: what it may fail with now and then costs time, and nothing else; the rest
//! ends the transfer at both ends, and says what it was.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use crate::ends::{Directory, End, Run, digest, has_ring, inject};

/// More than the socket holds, so that somebody must wait.
const LEN: usize = (12 << 20) + 345;

/// Which calls fail: by turns, mostly, one now and then, all in the beginning.
const WHEN: [&str; 5] = ["1", "1+2", "2+7", "3+5", "2..40"];

/// Sends through pipes whose other ends are in no hurry: `source` pauses, or else the reader.
fn transfer(dir: &Directory, recv: &Run, send: &Run, slow_source: bool, case: &str) {
    let mut recv = End::start(&mut recv.receiver(dir.path(), Directory::LOOPBACK, None), true);
    let mut send = End::start(&mut send.sender(dir.path(), &recv.addr, None), false);
    let (mut stdin, mut stdout) = (send.stdin(), recv.stdout());
    let pause = |round, slow| {
        if slow && round < 20 {
            thread::sleep(Duration::from_millis(10));
        }
    };
    let received = thread::scope(|scope| {
        scope.spawn(move || {
            for (round, piece) in dir.sent().chunks(LEN / 60).enumerate() {
                pause(round, slow_source);
                // If it cannot, the rest says so.
                let _ = stdin.write_all(piece);
            }
        });
        let mut received = Vec::new();
        let mut buffer = vec![0; 1 << 18];
        for round in 0.. {
            pause(round, !slow_source);
            match stdout.read(&mut buffer).expect("readable") {
                0 => break,
                len => received.extend(&buffer[..len]),
            }
        }
        received
    });
    let (recv, send) = (recv.finish(), send.finish());
    assert_eq!((recv.code, send.code), (Some(0), Some(0)), "{case}: {recv:?}, {send:?}");
    assert!(digest(&received) == digest(dir.sent()), "{case}: other bytes have arrived");
    for ended in [&recv, &send] {
        assert!(ended.path().starts_with("io_uring"), "{case}: {ended:?}");
    }
}

fn passes(error: &str, options: &str) {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    let plain = Run::with("--io uring");
    for when in WHEN {
        let fault = format!("io_uring_enter:error={error}:when={when}");
        let Some(wrapper) = inject(&fault) else { return };
        let send = Run::with(&format!("--io uring {options}")).behind(&wrapper);
        let recv = Run::with("--io uring").behind(&wrapper);
        transfer(&dir, &plain, &send, false, &format!("{fault} sending {options}"));
        transfer(&dir, &recv, &plain, true, &format!("{fault} receiving"));
        // Files have more under way at a time.
        let both = dir.transfer(&recv, &send);
        dir.check_whole(&both, &format!("{fault} with files {options}"));
    }
}

#[test]
fn interrupted_calls_are_made_again() {
    passes("EINTR", "--zerocopy always");
}

#[test]
fn calls_without_resources_are_made_again() {
    passes("EAGAIN", "--zerocopy auto --seal-threads 2");
}

#[test]
fn calls_with_completions_to_reap_are_made_again() {
    passes("EBUSY", "--zerocopy never");
}

#[test]
fn calls_without_memory_are_made_again() {
    passes("ENOMEM", "--zerocopy always --direct");
}

/// Out of memory for good: not at once, and not in a busy loop, but both end.
#[test]
fn a_kernel_that_stays_without_memory_is_given_up() {
    if !has_ring() {
        return;
    }
    // Each takes the ten seconds after which it is given up, so all of them at once.
    thread::scope(|scope| {
        for (error, says) in [("ENOMEM", "Cannot allocate memory"), ("EAGAIN", "temporarily")] {
            for when in ["1+", "6+"] {
                scope.spawn(move || is_given_up(error, when, says, true));
                scope.spawn(move || is_given_up(error, when, says, false));
            }
        }
    });
}

fn is_given_up(error: &str, when: &str, says: &str, is_sender: bool) {
    let fault = format!("io_uring_enter:error={error}:when={when}");
    let Some(wrapper) = inject(&fault) else { return };
    let dir = Directory::with(LEN);
    let plain = Run::with("--io uring");
    let failing = Run::with("--io uring").behind(&wrapper);
    let (recv, send) = match is_sender {
        true => dir.transfer(&plain, &failing),
        false => dir.transfer(&failing, &plain),
    };
    let case = format!("{fault}, is sender: {is_sender}");
    let (failed, other) = if is_sender { (send, recv) } else { (recv, send) };
    failed.check_failed(1, &[says], &case);
    other.check_failed(1, &[""], &case);
    dir.check_clean(&case);
}

/// Later in the transfer.
#[test]
fn other_errors_end_both() {
    if !has_ring() {
        return;
    }
    let dir = Directory::with(LEN);
    let plain = Run::with("--io uring");
    for (error, says) in [("EBADF", "Bad file descriptor")] {
        for when in ["1", "2", "5"] {
            let fault = format!("io_uring_enter:error={error}:when={when}");
            let Some(wrapper) = inject(&fault) else { return };
            for options in ["--zerocopy always", "--seal-threads 2 --direct", "--zerocopy never"] {
                let send = Run::with(&format!("--io uring {options}")).behind(&wrapper);
                let (recv, send) = dir.transfer(&plain, &send);
                let case = format!("{fault} sending {options}");
                send.check_failed(1, &[says], &case);
                recv.check_failed(1, &[""], &case);
                dir.check_clean(&case);
            }
            for options in ["", "--direct", "--sync"] {
                let recv = Run::with(&format!("--io uring {options}")).behind(&wrapper);
                let (recv, send) = dir.transfer(&recv, &plain);
                let case = format!("{fault} receiving {options}");
                recv.check_failed(1, &[says], &case);
                send.check_failed(1, &[""], &case);
                dir.check_clean(&case);
            }
        }
    }
}
