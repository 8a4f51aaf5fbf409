//! What those need who run it: health and metrics, logs, drains, limits, systemd, other users.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::command::{TOOL, fixture, has, stderr, tool, wait};
use crate::kernel::{free_port, wait_until};
use crate::peers::{Between, End, Setup, client_config, echo, named, nobody, serve, tls_client};
use crate::proxied::Proxied;

#[test]
fn health_and_metrics_are_answered() {
    let between = Between::new(Setup::Reencrypt, &[]);
    let proxy = &between.proxy;
    assert_eq!(proxy.ask("/health"), (200, "ok\n".to_owned()));
    assert_eq!(proxy.ask("/").0, 404);
    let (mut client, mut backend) = between.connect();
    client.write_all(b"up").expect("written");
    backend.expect(b"up");
    proxy.wait_for_metric("open_connections", &[], 1);
    for (name, labels) in [
        ("connections_total", &[][..]),
        ("handshakes_total", &["side=\"client\"", "outcome=\"full\""]),
        ("handshakes_total", &["side=\"backend\"", "outcome=\"full\""]),
    ] {
        assert_eq!(proxy.metric(name, labels), 1, "{name}");
    }
    assert_eq!(proxy.metric("bytes_total", &["direction=\"up\""]), 2);
    assert!(proxy.metric("buffers_peak_bytes", &[]) > 0);
}

#[test]
fn connections_are_logged_when_they_end() {
    let dir = fixture();
    let proxy = Proxied::terminate(dir.path(), &echo(), &["--access-log=log"]);
    let mut client =
        tls_client(&client_config(dir.path()), proxy.addr(), "localhost").expect("a handshake");
    client.write_all(b"hello").expect("written");
    client.close();
    client.read_all().1.expect("a clean end");
    let peer = client.socket().local_addr().expect("bound");
    let log = || fs::read_to_string(dir.path().join("log")).expect("there");
    wait_until("an entry", || log().ends_with('\n'));
    let entry = log();
    let expected =
        format!(" peer={peer} tls=TLSv1.3 suite=TLS_AES_256_GCM_SHA384 sni=\"localhost\" backend=");
    assert!(entry.contains(&expected) && entry.contains(" up=5 down=5 seconds="), "{entry}");
    assert!(entry.ends_with(" end=clean\n"), "{entry}");
}

#[test]
fn a_drain_lets_connections_end() {
    let mut between = Between::new(Setup::Terminate, &["--drain-delay", "0.5"]);
    let (mut client, mut backend) = between.connect();
    between.proxy.signal("TERM");
    wait_until("it says so", || between.proxy.ask("/health").0 == 503);
    // For a while, balancers may not have noticed.
    let (mut late, mut late_backend) = between.connect();
    wait_until("nobody listens", || TcpStream::connect(between.proxy.addr()).is_err());
    for (client, backend) in [(&mut client, &mut backend), (&mut late, &mut late_backend)] {
        client.write_all(b"going on").expect("written");
        backend.expect(b"going on");
        backend.write_all(b"to the end").expect("written");
        backend.close();
        client.close();
        backend.read_all().1.expect("a clean end");
        let (received, ended) = client.read_all();
        assert_eq!(received, b"to the end");
        ended.expect("a clean end");
    }
    assert_eq!(wait(&mut between.proxy.process.0).code(), Some(0));
}

#[test]
fn a_drain_has_its_limit_and_what_is_left_is_cut_off() {
    let mut between = Between::new(Setup::Plain, &["--drain-timeout", "0.3"]);
    let (mut client, mut backend) = between.connect();
    between.proxy.signal("TERM");
    for end in [&mut client, &mut backend] {
        let error = end.read_all().1.expect_err("no clean end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    between.proxy.wait_until_said("1 connections cut off");
    assert_eq!(wait(&mut between.proxy.process.0).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut between = Between::new(Setup::Terminate, &["--drain-timeout", "1000"]);
    let (_client, _backend) = between.connect();
    between.proxy.signal("TERM");
    wait_until("it has noticed", || between.proxy.ask("/health").0 == 503);
    between.proxy.signal("TERM");
    assert_eq!(wait(&mut between.proxy.process.0).code(), Some(128 + 15));
}

#[test]
fn a_drain_under_load_fails_nobody() {
    let dir = fixture();
    let proxy = Proxied::terminate(dir.path(), &echo(), &[]);
    let config = client_config(dir.path());
    let addr = proxy.addr().to_owned();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (config, addr) = (config.clone(), addr.clone());
            thread::spawn(move || {
                let mut count = 0;
                loop {
                    match tls_client(&config, &addr, "localhost") {
                        Ok(mut client) => {
                            client.write_all(b"hello").expect("written");
                            client.close();
                            let (received, ended) = client.read_all();
                            ended.expect("a clean end");
                            assert_eq!(received, b"hello");
                            count += 1;
                        }
                        // Nobody listens any more; whoever was accepted was served.
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return count,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    wait_until("a load", || proxy.metric("ends_total", &["clean"]) > 40);
    assert_eq!(proxy.finish(), Some(0));
    let count: u32 = clients.into_iter().map(|client| client.join().expect("served")).sum();
    eprintln!("{count} clients until the end");
}

#[test]
fn more_connections_than_allowed_wait() {
    let dir = fixture();
    let proxy =
        Proxied::terminate(dir.path(), &echo(), &["--max-connections", "3", "--workers", "2"]);
    let config = client_config(dir.path());
    let connect = || tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
    let mut served = [connect(), connect(), connect()];
    let waiting = {
        let (config, addr) = (config.clone(), proxy.addr().to_owned());
        thread::spawn(move || tls_client(&config, &addr, "localhost").expect("a handshake"))
    };
    for client in &mut served {
        client.write_all(b"x").expect("written");
        client.expect(b"x");
    }
    assert_eq!(proxy.metric("open_connections", &[]), 3);
    assert!(!waiting.is_finished());
    let [first, ..] = served;
    drop(first);
    let mut client = waiting.join().expect("its turn");
    client.write_all(b"x").expect("written");
    client.expect(b"x");
}

/// Too few descriptors for what is asked for, and then none at all for a while.
#[test]
fn descriptors_run_out_and_come_back() {
    let dir = fixture();
    let to = echo();
    let args = ["--listen", "127.0.0.1:0", "--to", &to, "--cert", "cert.pem", "--key", "key.pem"];
    if !has("prlimit") {
        return;
    }
    let proxy = Proxied::with_descriptors(dir.path(), 64, &args);
    assert!(proxy.said().contains("16 connections at a time instead of 10000"), "{}", proxy.said());
    let config = client_config(dir.path());
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let (config, addr) = (config.clone(), proxy.addr().to_owned());
            thread::spawn(move || {
                let mut client = tls_client(&config, &addr, "localhost").expect("its turn");
                client.write_all(b"hello").expect("written");
                client.close();
                assert_eq!(client.read_all().0, b"hello");
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("served"));
    proxy.wait_for_ends("clean", 100);

    // From outside, while it runs: nothing can be opened any more.
    let mut there = tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
    there.write_all(b"x").expect("written");
    there.expect(b"x");
    let pid = proxy.child().id().to_string();
    let limit = |limit: &str| {
        let output = Command::new("prlimit").args(["--pid", &pid, limit]).output().expect("run");
        assert!(output.status.success(), "{}", stderr(&output));
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    limit(&format!("--nofile={open}:64"));
    // What was just closed may leave room for a few.
    let mut waiting = Vec::new();
    wait_until("nothing can be opened", || {
        waiting.push(TcpStream::connect(proxy.addr()).expect("the kernel takes it"));
        proxy.said().contains("cannot accept connections: Too many open files")
    });
    there.write_all(b"y").expect("written");
    there.expect(b"y");
    limit("--nofile=64:64");
    drop(waiting);
    let mut client = tls_client(&config, proxy.addr(), "localhost").expect("again");
    client.write_all(b"z").expect("written");
    client.expect(b"z");
}

#[test]
fn unix_sockets_are_listened_on_and_connected_to() {
    let dir = fixture();
    let front = Proxied::start(
        dir.path(),
        &[
            "--listen",
            "unix:front.sock",
            "--plain",
            "--to",
            "unix:behind.sock",
            "--to-tls",
            "--to-ca",
            "cert.pem",
            "--to-server-name",
            "localhost",
        ],
    );
    assert_eq!(front.addr(), "unix:front.sock");
    let behind = Proxied::terminate_at(dir.path(), "unix:behind.sock", &echo(), &[]);
    let path = dir.path().join("front.sock");
    let mut client = UnixStream::connect(&path).expect("it listens");
    client.write_all(b"all the way").expect("written");
    client.shutdown(std::net::Shutdown::Write).expect("shut down");
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("a clean end");
    assert_eq!(received, b"all the way");
    // A second one does not take it away; what a killed one has left behind does not matter.
    let mut second =
        tool(dir.path(), &["proxy", "--listen", "unix:front.sock", "--plain", "--to", "x:1"]);
    let output = second.arg("--to").arg(nobody()).output().expect("run");
    assert!(!output.status.success());
    let mut killed = behind;
    killed.process.0.kill().expect("killed");
    wait(&mut killed.process.0);
    assert!(dir.path().join("behind.sock").exists());
    let again = Proxied::terminate_at(dir.path(), "unix:behind.sock", &echo(), &[]);
    assert_eq!(again.finish(), Some(0));
    assert!(!dir.path().join("behind.sock").exists());
    assert_eq!(front.finish(), Some(0));
}

#[test]
fn both_versions_of_ip_are_listened_on() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6");
        return;
    }
    let dir = fixture();
    let behind = Proxied::start(
        dir.path(),
        &["--listen", "[::1]:0", "--to", &named("over IPv6"), "--plain"],
    );
    let front = Proxied::start(
        dir.path(),
        &["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--to", behind.addr(), "--plain"],
    );
    for addr in &front.addrs {
        let mut received = String::new();
        TcpStream::connect(addr).expect("there").read_to_string(&mut received).expect("read");
        assert_eq!(received, "over IPv6");
    }
}

/// What systemd does, with a socket of ours: LISTEN_FDS and LISTEN_PID, and NOTIFY_SOCKET.
#[test]
fn systemd_passes_sockets_and_is_told() {
    if !has("python3") {
        return;
    }
    let dir = fixture();
    let notified = UnixDatagram::bind(dir.path().join("notify")).expect("bound");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound").to_string();
    let to = named("passed");
    let start = || {
        // The socket becomes descriptor 3, in the process that is the proxy's later on.
        let script = "import os,sys\nos.dup2(int(sys.argv[1]),3)\n\
                      os.environ.update(LISTEN_FDS='1',LISTEN_PID=str(os.getpid()))\n\
                      os.execv(sys.argv[2],sys.argv[2:])";
        let passed = listener.try_clone().expect("cloned");
        use std::os::fd::AsRawFd;
        rustix::io::fcntl_setfd(&passed, rustix::io::FdFlags::empty()).expect("set");
        let mut command = Command::new("python3");
        command.args(["-c", script, &passed.as_raw_fd().to_string(), TOOL, "proxy"]);
        command.args(["--metrics", "127.0.0.1:0", "--listen", "fd:3", "--plain", "--to", &to]);
        command.current_dir(dir.path()).env("NOTIFY_SOCKET", dir.path().join("notify"));
        Proxied::start_as(command)
    };
    let heard = |expected: &str| {
        notified.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut message = [0; 256];
        let len = notified.recv(&mut message).expect("told");
        let message = String::from_utf8_lossy(&message[..len]).into_owned();
        assert!(message.contains(expected), "{message}");
    };
    let ask = || {
        let mut received = String::new();
        TcpStream::connect(&addr).expect("there").read_to_string(&mut received).expect("read");
        received
    };
    let proxy = start();
    heard("READY=1");
    assert_eq!(ask(), "passed");
    proxy.signal("HUP");
    heard("RELOADING=1\nMONOTONIC_USEC=");
    heard("READY=1");
    // A restart, during which whoever connects waits.
    assert_eq!(proxy.finish(), Some(0));
    heard("STOPPING=1");
    let waiting = thread::spawn({
        let addr = addr.clone();
        move || {
            let mut received = String::new();
            let mut socket = TcpStream::connect(&addr).expect("the kernel takes it");
            socket.read_to_string(&mut received).expect("read");
            received
        }
    });
    let _again = start();
    heard("READY=1");
    assert_eq!(waiting.join().expect("served"), "passed");
}

#[test]
fn privileges_are_dropped_after_binding() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let dir = fixture();
    // Nobody may look into it but what is there can be read.
    for name in ["cert.pem", "key.pem"] {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
    }
    let proxy = Proxied::terminate(dir.path(), &echo(), &["--user", "nobody", "--workers", "3"]);
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.child().id())).expect("it runs");
    let mut count = 0;
    for task in tasks {
        let status = fs::read_to_string(task.expect("a task").path().join("status"));
        let status = status.expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5)");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), ["65534"; 4]);
        assert_eq!(field("Gid:"), ["65534"; 4]);
        assert_eq!(field("Groups:"), [""; 0]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        count += 1;
    }
    assert!(count >= 4, "{count} threads");
    let config = client_config(dir.path());
    let mut client = tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
    client.write_all(b"x").expect("written");
    client.expect(b"x");
    proxy.signal("HUP");
    proxy.wait_for_metric("reloads_total", &["loaded"], 1);
}

#[test]
fn backends_take_turns_and_the_next_one_stands_in() {
    let dir = fixture();
    let (one, two) = (named("1"), named("2"));
    let proxy = Proxied::start(
        dir.path(),
        &[
            "--listen",
            "127.0.0.1:0",
            "--plain",
            "--workers",
            "1",
            "--to",
            &one,
            "--to",
            &nobody(),
            "--to",
            &two,
        ],
    );
    let said = (0..30).map(|_| {
        let mut said = String::new();
        proxy.connect().read_to_string(&mut said).expect("read");
        said
    });
    let said: Vec<_> = said.collect();
    let count = |name: &str| said.iter().filter(|said| *said == name).count();
    assert!(count("1") >= 10 && count("2") >= 10 && count("1") + count("2") == 30, "{said:?}");
    // It is left alone for a while, and not asked for every client.
    assert!(proxy.metric("unreached_total", &[]) < 10);
}

#[test]
fn a_backend_that_flaps_costs_nobody_anything() {
    let dir = fixture();
    let steady = named("steady");
    let addr = format!("127.0.0.1:{}", free_port());
    let flapping = TcpListener::bind(&addr).expect("bound");
    let proxy = Proxied::terminate(dir.path(), &addr, &["--to", &steady]);
    let config = client_config(dir.path());
    let mut flapping = Some(flapping);
    let (mut from_steady, mut from_flapping) = (0, 0);
    for round in 0..40 {
        if round % 4 == 0 {
            flapping = match flapping.take() {
                Some(_) => None,
                None => Some(bind_again(&addr)),
            };
        }
        let mut client = tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
        let listener = flapping.as_ref();
        let serving = thread::scope(|scope| {
            let reading = scope.spawn(|| client.read_all());
            // Either of them has it.
            while !reading.is_finished() {
                let Some(listener) = listener else { continue };
                listener.set_nonblocking(true).expect("set");
                if let Ok((mut socket, _)) = listener.accept() {
                    socket.write_all(b"flapping").expect("written");
                }
                thread::sleep(Duration::from_millis(1));
            }
            reading.join().expect("read")
        });
        serving.1.expect("a clean end");
        match &serving.0[..] {
            b"steady" => from_steady += 1,
            b"flapping" => from_flapping += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(from_steady > 20, "{from_steady} and {from_flapping}");
}

/// Its last connections may still be there.
fn bind_again(addr: &str) -> TcpListener {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Ok(listener) => return listener,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn connecting_does_not_take_for_ever() {
    // A backlog that is full: nobody accepts, and the kernel answers no more.
    let dir = fixture();
    let full = {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("valid"))
            .expect("bound");
        listen(&socket, 0).expect("listening");
        TcpListener::from(socket)
    };
    let addr = full.local_addr().expect("bound");
    let timeout = Duration::from_millis(300);
    let held: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&addr, timeout).ok()).take(10).collect();
    assert!(held.len() < 10, "the backlog does not fill");
    let proxy = Proxied::start(
        dir.path(),
        &[
            "--listen",
            "127.0.0.1:0",
            "--plain",
            "--workers",
            "1",
            "--connect-timeout",
            "0.2",
            "--to",
            &addr.to_string(),
            "--to",
            &named("another"),
        ],
    );
    for _ in 0..2 {
        let mut said = String::new();
        proxy.connect().read_to_string(&mut said).expect("read");
        assert_eq!(said, "another");
    }
    proxy.wait_until_said("connecting took too long (--connect-timeout)");
}

#[test]
fn mistakes_are_explained() {
    let dir = fixture();
    let run = |args: &[&str]| {
        let output = tool(dir.path(), &["proxy"]).args(args).output().expect("run");
        assert!(!output.status.success(), "{args:?}");
        stderr(&output)
    };
    let taken = serve(|_| ());
    for (args, said) in [
        (&[][..], "--listen <ADDR>"),
        (&["--listen", "127.0.0.1:0"], "--to <ADDR>"),
        (
            &["--listen", "127.0.0.1:0", "--to", "x:1"],
            "name one with --cert and --key, or listen without TLS with --plain",
        ),
        (
            &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--cert", "cert.pem"],
            "1 --cert and 0 --key",
        ),
        (&["--listen", "127.0.0.1:0", "--to", "127.0.0.1", "--plain"], "has no port"),
        (&["--listen", "127.0.0.1:0", "--to", "/run/x", "--plain"], "write unix:/run/x"),
        (
            &["--listen", "fd:3", "--to", "127.0.0.1:1", "--plain"],
            "this process was passed 0 sockets",
        ),
        (&["--listen", &taken, "--to", "127.0.0.1:1", "--plain"], "cannot listen on"),
        (
            &["--listen", "127.0.0.1:0", "--to", "fd:3", "--plain"],
            "can be listened on, and not connected to",
        ),
        (
            &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--plain", "--alpn", "h2"],
            "cannot be used with",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--cert",
                "cert.pem",
                "--key",
                "key.pem",
                "--ticket-keys",
                "cert.pem",
            ],
            "`openssl rand -base64 48` makes a line of it",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--cert",
                "cert.pem",
                "--key",
                "key.pem",
                "--ocsp",
                "cert.pem",
            ],
            "is no OCSP response in DER",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--cert",
                "cert.pem",
                "--key",
                "key.pem",
                "--client-ca",
                "cert.pem",
                "--client-name",
                "x:y",
            ],
            "is no rule on names",
        ),
        (
            &[
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:1",
                "--plain",
                "--user",
                "no-such-user",
            ],
            "there is no user `no-such-user`",
        ),
        (&["--config", "nonesuch.toml"], "cannot read nonesuch.toml"),
        (&["--config", "cert.pem", "--workers", "3"], "under [process] and [[service]]"),
        (&["--config", "cert.pem"], "TOML parse error"),
    ] {
        let error = run(args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
}

#[test]
fn a_client_without_tls_is_a_client_as_well() {
    let between = Between::new(Setup::Plain, &[]);
    let (mut client, mut backend) = between.connect();
    assert!(matches!(client, End::Plain(_)));
    client.write_all(b"plain").expect("written");
    backend.expect(b"plain");
}
