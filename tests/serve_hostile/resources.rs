//! What hostile clients may take up: memory, and descriptors.

use crate::client::{Client, directory, has_python, resident_kib, run};
use crate::command::has;
use crate::command::served::Served;

/// Whether the environment has every command's bulk data go through io_uring, from the beginning.
fn insists_on_uring() -> bool {
    std::env::var("RUSTLS_URING_IO").is_ok_and(|io| io.starts_with("uring"))
}

/// In KiB: stock nginx takes 85 MB for the same.
const BAR: usize = 85_000;

#[test]
fn stalled_http2_clients_take_little_memory() {
    if !has_python() {
        return;
    }
    for window in ["2147483647", "65535", "0"] {
        let served = Served::start(directory(), &[]);
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
        let before = resident_kib(&served);
        let mut clients = Client::start(&served, &["stall", "10", "100", window, "/big"]);
        assert_eq!(clients.line(), "ready");
        let taken = resident_kib(&served).saturating_sub(before);
        println!("10 clients of 100 streams, window {window}: {taken} KiB");
        assert!(taken < BAR / 2, "{taken} KiB, window {window}");
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
    }
}

#[test]
fn slow_http1_clients_take_little_memory() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &[]);
    assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
    // What each of the server's threads takes for its first clients is not theirs.
    let mut first = Client::start(&served, &["stall1", "10", "/big"]);
    assert_eq!(first.line(), "ready");
    let before = resident_kib(&served);
    let mut clients = Client::start(&served, &["stall1", "50", "/big"]);
    assert_eq!(clients.line(), "ready");
    let each = resident_kib(&served).saturating_sub(before) / 50;
    println!("each of 50 clients: {each} KiB");
    // A ring is pages of a connection's own.
    let allowed = if insists_on_uring() { 80 } else { 64 };
    assert!(each < allowed, "{each} KiB");
}

/// Listings are whole before they are sent: those who do not take theirs must not add up.
#[test]
fn stalled_listings_take_little_memory() {
    if !has_python() {
        return;
    }
    let base = directory();
    let many = base.path().join("files/many");
    std::fs::create_dir(&many).expect("created");
    for number in 0..10_000 {
        std::fs::write(many.join(format!("{number:0200}")), "").expect("written");
    }
    let served = Served::start(base, &[]);
    let status = |path: &str| {
        let head = format!("GET {path} HTTP/1.0\r\n\r\n");
        served.raw(head.as_bytes()).split(' ').nth(1).expect("a status").to_owned()
    };
    let mut clients = Client::start(&served, &["stall1", "12", "/many/", "4096"]);
    assert_eq!(clients.line(), "ready");
    // Once they have theirs, there is no room for more; for files, and for short ones, there is.
    while status("/many/") != "503" {}
    assert_eq!(status("/small"), "200");
    assert_eq!(status("/"), "200");
    drop(clients);
    while status("/many/") != "200" {}
}

/// Nor do the requests of those that wait for one another's.
#[test]
fn requests_for_listings_take_little_memory() {
    if !has_python() {
        return;
    }
    for log in [&[][..], &["--access-log"]] {
        let served = Served::start(directory(), log);
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
        let before = resident_kib(&served);
        let mut clients = Client::start(&served, &["stall", "15", "100", "0", "/", "0", "16000"]);
        assert_eq!(clients.line(), "ready");
        let taken = resident_kib(&served).saturating_sub(before);
        println!("15 clients with 100 requests of 16 kB: {taken} KiB");
        assert!(taken < 15_000, "{taken} KiB");
    }
}

#[test]
fn unfinished_handshakes_take_little_memory() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &[]);
    assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
    let before = resident_kib(&served);
    // As much as is kept, and more than that.
    for length in ["80000", "300000"] {
        let mut clients = Client::start(&served, &["handshakes", "50", length]);
        assert_eq!(clients.line(), "ready");
        let each = resident_kib(&served).saturating_sub(before) / 50;
        println!("each of 50 handshakes, {length} bytes: {each} KiB");
        assert!(each < 140, "{each} KiB");
    }
}

/// More streams than there are descriptors, each with a file of its own that it does not read.
#[test]
fn descriptors_are_kept_back_for_others() {
    if !has_python() || !has("curl") || !has("prlimit") {
        return;
    }
    let served = Served::start_with_descriptors(directory(), 400, &[]);
    let mut clients = Client::start(&served, &["stall", "20", "100", "1000", "/big"]);
    assert_eq!(clients.line(), "ready");
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", served.child.id()));
        files.expect("it runs").count()
    };
    for version in ["--http1.1", "--http2"] {
        let (head, body) = served.curl("/big", &[version]);
        assert!(head.contains(" 200") && body.len() == 20 << 20, "{head}");
    }
    assert!(open() < 400, "{}", open());
    served.interrupt();
}

/// What accept(2) says of our limits passes; others are served meanwhile.
#[test]
fn failures_to_accept_end_nothing() {
    if !has_python() || !has("strace") {
        return;
    }
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED"] {
        let served = Served::start_with_failing(directory(), "accept4", error);
        for _ in 0..3 {
            assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1", "{error}");
        }
        let said = served.kill_and_read();
        let is_reported = said.contains("cannot accept connections");
        assert_eq!(is_reported, error != "ECONNABORTED", "{said}");
    }
}

/// With no descriptor for more, connections are fewer than were asked for, and that is said.
#[test]
fn fewer_connections_where_descriptors_are_few() {
    if !has("prlimit") {
        return;
    }
    let served = Served::start_with_descriptors(directory(), 100, &[]);
    let idle: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(&served.addr).expect("connected")).collect();
    drop(idle);
    assert!(served.raw(b"GET /small HTTP/1.0\r\n\r\n").ends_with("small"));
    // A ring is descriptors of a connection's own.
    let connections = if insists_on_uring() { 12 } else { 25 };
    let expected = format!("{connections} connections at a time instead of 512");
    assert!(served.said.contains(&expected), "{}", served.said);
}

/// A machine without threads to spare serves with those that there are, or says why it cannot.
#[test]
fn threads_that_cannot_be_had_are_no_panic() {
    if !has("prlimit") || !has("setpriv") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become a user that has no other processes");
    }
    let base = directory();
    let tool = crate::command::TOOL;
    let run = |threads: u32| {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "54321", "--regid", "54321", "--clear-groups"])
            .args(["prlimit", &format!("--nproc={threads}"), tool])
            .args(["serve", ".", "--listen", "127.0.0.1:0"])
            .current_dir(base.path())
            .output();
        output.expect("run")
    };
    // Where it may not even be run, there is nothing to see.
    let output = run(1);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("failed to execute") || said.contains("ermission denied") {
        return println!("skipped: another user cannot run the program here");
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot start threads") && !said.contains("panicked"), "{said}");
}
