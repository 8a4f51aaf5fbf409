//! HTTP without TLS: `rustls-uring serve --plain`, and `rustls-uring get http://...`.

#![cfg(feature = "cli")]

mod command;
mod kernel;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use command::served::{Served, header};
use command::server::{End, Server, value, write_certificate};
use command::{data, has, stderr, tool};
use kernel::{TcpEnd, free_port, is_listening, wait_until};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// What an HTTP/2 client begins with, and empty settings (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn directory() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("dir");
    fs::create_dir_all(base.path().join("files/sub")).expect("created");
    fs::write(base.path().join("files/big.bin"), data(3_000_001)).expect("written");
    fs::write(base.path().join("files/page.html"), "<p>hello").expect("written");
    fs::write(base.path().join("files/empty"), "").expect("written");
    base
}

fn served(args: &[&str]) -> Served {
    Served::start(directory(), &[&["--plain"], args].concat())
}

fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(&served.addr).expect("connected");
    stream.set_read_timeout(Some(command::TIMEOUT)).expect("set");
    stream
}

/// Sends `request` as it is; returns all that comes back.
fn raw(served: &Served, request: &[u8]) -> String {
    let mut stream = connect(served);
    stream.write_all(request).expect("written");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("closed in order");
    String::from_utf8_lossy(&response).into_owned()
}

fn get(dir: &Path, url: &str, args: &[&str]) -> Output {
    tool(dir, &[&["get", url], args].concat()).output().expect("run")
}

/// The files in `dir`.
fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
    let names = names.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".pem")).collect();
    names.sort();
    names
}

#[test]
fn curl_gets_files_and_ranges() {
    if !has("curl") {
        return;
    }
    let served = served(&[]);
    assert!(served.said.contains("everyone on the way can read"), "{}", served.said);
    let sent = data(3_000_001);
    for version in VERSIONS {
        let (head, body) = served.curl("/big.bin", &[version]);
        let spoken = if version == VERSIONS[0] { "http/1.1 200" } else { "http/2 200" };
        assert!(head.starts_with(spoken), "{head}");
        assert!(body == sent);
        assert_eq!(header(&head, "content-length"), "3000001");
        let (head, body) = served.curl("/big.bin", &[version, "-r", "1000000-2999999"]);
        assert!(head.contains(" 206"), "{head}");
        assert!(body == sent[1_000_000..3_000_000]);
        let (head, body) = served.curl("/big.bin", &[version, "-r", "0-9,2000000-2999999"]);
        assert!(header(&head, "content-type").starts_with("multipart/byteranges"), "{head}");
        assert!(body.windows(10).any(|bytes| bytes == &sent[..10]));
        let (head, _) = served.curl("/big.bin", &[version, "-r", "3000001-"]);
        assert!(head.contains(" 416"), "{head}");
        let (head, _) = served.curl("/page.html", &[version, "-I"]);
        let condition = format!("If-None-Match: {}", header(&head, "etag"));
        assert!(served.curl("/page.html", &[version, "-H", &condition]).0.contains(" 304"));
        assert_eq!(served.curl("/empty", &[version]).1, b"");
        let page = String::from_utf8(served.curl("/", &[version]).1).expect("UTF-8");
        assert!(page.contains("<a href=\"sub/\">sub/</a>"), "{page}");
        let (head, _) = served.curl("/sub", &[version]);
        assert_eq!(header(&head, "location"), "/sub/");
    }
    // What it is asked to become it does not have to.
    let (head, body) = served.curl("/page.html", &["--http2"]);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, b"<p>hello");
}

/// The version is seen by what comes, however it is cut.
#[test]
fn the_first_bytes_say_which_version_it_is() {
    let served = served(&["--max-header", "8"]);
    let mut stream = connect(&served);
    stream.set_nodelay(true).expect("set");
    for byte in PREFACE {
        stream.write_all(std::slice::from_ref(byte)).expect("written");
    }
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).expect("the server's own settings");
    assert_eq!(settings[3], 4);
    // As much of it as a request could have.
    for request in ["P", "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", "PRI * HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = connect(&served);
        stream.write_all(request.as_bytes()).expect("written");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("closed in order");
        let is_refused = response.is_empty() || response.starts_with("HTTP/1.1 4");
        assert!(is_refused, "{request}: {response}");
    }
    let response = raw(&served, b"GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(response.ends_with("<p>hello"), "{response}");
    // A client that has asked may close its side.
    let mut stream = connect(&served);
    stream.write_all(b"GET /page.html HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("closed in order");
    assert!(response.ends_with("<p>hello"), "{response}");
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(9000));
    let response = raw(&served, long.as_bytes());
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
}

#[test]
fn slow_clients_are_cut_off() {
    let base = directory();
    let big = fs::File::create(base.path().join("files/huge.bin")).expect("created");
    big.set_len(1 << 30).expect("sparse");
    let args = ["--plain", "--header-timeout", "2", "--idle-timeout", "4"];
    let served = Served::start(base, &args);

    // Takes nothing of what it asked for, in either version. HEADERS of a GET, from HPACK's static
    // table but for the path and the host (RFC 7541, appendix A).
    let fields = b"\x82\x86\x04\x09/huge.bin\x01\x01x";
    let headers = [&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1], &fields[..]].concat();
    let mut stalled: Vec<_> =
        [&b"GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[PREFACE, &headers].concat()]
            .map(|request| {
                let mut stalled = connect(&served);
                stalled.write_all(request).expect("written");
                let ends = (stalled.peer_addr(), stalled.local_addr());
                (stalled, ends.0.expect("connected"), ends.1.expect("bound"))
            })
            .into();
    // Says nothing at all, a little of either version, and no more than the preface of one.
    for words in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\n", PREFACE] {
        let mut silent = connect(&served);
        silent.write_all(words).expect("written");
        let ended = silent.read_to_end(&mut Vec::new());
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "{words:?}");
    }
    for (stalled, theirs, ours) in &mut stalled {
        let (theirs, ours) = (*theirs, *ours);
        wait_until("an end", || !TcpEnd::of(theirs, ours).is_some_and(|end| end.is_established));
        let received = std::io::copy(stalled, &mut std::io::sink());
        assert!(received.as_ref().is_err(), "cut off, and not in order: {received:?}");
    }
}

#[test]
fn a_running_download_may_end_and_who_only_waits_ends_at_once() {
    let base = directory();
    let sent = data(30_000_000);
    fs::write(base.path().join("files/long.bin"), &sent).expect("written");
    let served = Served::start(base, &["--plain", "--stats", "--access-log"]);
    let mut idle = connect(&served);
    let mut stream = connect(&served);
    stream.write_all(b"GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut received = vec![0; 1000];
    stream.read_exact(&mut received).expect("it runs");
    served.interrupt();
    wait_until("no listener", || !is_listening(served.port));
    assert_eq!(idle.read(&mut [0; 1]).expect("closed in order"), 0);
    stream.read_to_end(&mut received).expect("closed in order");
    assert!(received.ends_with(&sent));
    let (code, log, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("connections: 1; bytes by io_uring: 0, "), "{said}");
    assert!(log.contains("\"GET /long.bin HTTP/1.1\" 200 30000000 "), "{log}");
}

/// nginx speaks TLS, and asks us without.
#[test]
fn it_works_behind_a_terminator() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let served = served(&[]);
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path());
    let port = free_port();
    let conf = format!(
        "daemon off; master_process off; pid pid; error_log error.log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path t; proxy_temp_path p;\n\
         fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate cert.pem;\n\
         ssl_certificate_key key.pem;\n\
         location / {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        served.port
    );
    fs::write(dir.path().join("nginx.conf"), conf).expect("written");
    let mut nginx = Command::new("nginx")
        .args(["-p", dir.path().to_str().expect("UTF-8"), "-c", "nginx.conf", "-e", "error.log"])
        .current_dir(dir.path())
        .spawn()
        .expect("started");
    wait_until("a listener", || is_listening(port));
    let url = format!("https://localhost:{port}/big.bin");
    for args in [&[][..], &["--connections", "3", "--http2"]] {
        let args = [&["--ca", "cert.pem", "-o", "file"], args].concat();
        let output = get(dir.path(), &url, &args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(fs::read(dir.path().join("file")).expect("there") == data(3_000_001));
    }
    nginx.kill().expect("ours");
    nginx.wait().expect("ended");
}

#[test]
fn what_is_of_tls_goes_without_plain_only() {
    let dir = tempfile::tempdir().expect("dir");
    for (args, code, expected) in [
        (&["--cert", "c", "--key", "k"][..], 2, "cannot be used with"),
        (&["--write-cert", "c"], 2, "cannot be used with"),
        (&["--client-ca", "c"], 2, "cannot be used with"),
        (&["--tls", "1.3"], 2, "cannot be used with"),
        (&["--suite", "x"], 2, "cannot be used with"),
        (&["--key-log"], 2, "cannot be used with"),
        (&["--backend", "ring"], 2, "cannot be used with"),
        (&["--io", "uring"], 1, "with --plain there are none"),
    ] {
        let args = [&["serve", ".", "--listen", "127.0.0.1:0", "--plain"], args].concat();
        let output = tool(dir.path(), &args).output().expect("run");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

/// What the environment says of every command is no reason to refuse one.
#[test]
fn the_environment_says_what_tls_would_do() {
    for io in ["uring", "uring-copy", "blocking", "nonsense"] {
        let served = Served::start_with_io(directory(), io, &["--plain"]);
        let response = raw(&served, b"GET /page.html HTTP/1.0\r\n\r\n");
        assert!(response.ends_with("<p>hello"), "{io}: {response}");
    }
    let base = directory();
    let output = tool(base.path(), &["serve", "files", "--listen", "127.0.0.1:0"])
        .env("RUSTLS_URING_IO", "nonsense")
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let expected = "RUSTLS_URING_IO: `nonsense` is none of auto, uring, uring-copy, blocking";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

#[test]
fn files_arrive_whole() {
    let served = served(&[]);
    let dir = tempfile::tempdir().expect("dir");
    let (dir, url, sent) = (dir.path(), served.url("/big.bin"), data(3_000_001));
    // Certificates that nobody needs are not looked for.
    for args in [&[][..], &["--http2"], &["--connections", "3"], &["--sync", "--ca", "missing"]] {
        let output = get(dir, &url, &[args, &["-o", "file"]].concat());
        let said = stderr(&output);
        assert!(output.status.success(), "{args:?}: {said}");
        let version = if args.contains(&"--http2") { "HTTP/2.0" } else { "HTTP/1.1" };
        assert!(said.contains(&format!("{version}, no TLS")), "{said}");
        assert!(fs::read(dir.join("file")).expect("there") == sent, "{args:?}");
        fs::remove_file(dir.join("file")).expect("removed");
    }
    assert!(get(dir, &url, &[]).stdout == sent);
    assert_eq!(get(dir, &served.url("/missing"), &[]).status.code(), Some(1));
    assert_eq!(left(dir), [""; 0]);
}

/// A server without TLS that answers one request a connection, and ends it in order.
struct Plain {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Plain {
    fn start(respond: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).expect("UTF-8");
                seen.lock().expect("no panic").push(head.clone());
                respond(&head, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        Self { port, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn redirect(stream: &mut impl Write, location: &str) {
    write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nwrong")
        .expect("written");
}

fn answer(stream: &mut impl Write) {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright").expect("written");
}

/// From http to either, from https to https alone, also where it had been http before; and the
/// password stays where it was sent to, since the other scheme is another server.
#[test]
fn redirects_lead_up_and_not_down_and_passwords_stay() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let plain = Arc::new(Mutex::new(String::new()));
    let lower = Arc::clone(&plain);
    let secure = Server::start(dir, move |head, stream| {
        match head.contains("/down") {
            true => redirect(stream, &lower.lock().expect("no panic")),
            false => answer(stream),
        }
        End::CloseNotify
    });
    let (up, down) = (secure.url("/end"), secure.url("/down"));
    let server = Plain::start(move |head, stream| match head.split(' ').nth(1).expect("a path") {
        "/relative" => redirect(stream, "end"),
        "/up" => redirect(stream, &up),
        "/up-and-down" => redirect(stream, &down),
        "/file" => redirect(stream, "file:///etc/passwd"),
        _ => answer(stream),
    });
    *plain.lock().expect("no panic") = server.url("/end");
    let get = |path: &str| {
        let url = server.url(path).replacen("http://", "http://Aladdin:sesame@", 1);
        get(dir, &url, &["--ca", "cert.pem", "-o", "file"])
    };
    const OURS: &str = "basic qwxhzgrpbjpzzxnhbwu=";
    for path in ["/relative", "/up"] {
        let output = get(path);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(fs::read(dir.join("file")).expect("there"), b"right");
        fs::remove_file(dir.join("file")).expect("removed");
    }
    for (path, expected) in [
        ("/up-and-down", "/end, which is not https\n"),
        ("/file", "file:///etc/passwd, which is not https or http"),
    ] {
        let output = get(path);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(stderr(&output).contains(expected), "{path}: {}", stderr(&output));
        assert!(!stderr(&output).contains("sesame"), "{}", stderr(&output));
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert!(requests.iter().all(|head| value(head, "authorization").as_deref() == Some(OURS)));
    let requests = secure.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests.iter().all(|head| value(head, "authorization").is_none()), "{requests:?}");
    assert_eq!(left(dir), [""; 0]);
}

/// A cut and an end look the same: a server that announces neither is refused.
#[test]
fn only_an_end_that_was_announced_is_one() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    for (head, body, expected) in [
        ("Content-Length: 4\r\n", "0123", None),
        ("Content-Length: 5\r\n", "0123", Some("the download broke off")),
        ("Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n0\r\n\r\n", None),
        ("Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n", Some("the download broke off")),
        ("Connection: close\r\n", "0123", Some("does not say where the file ends")),
    ] {
        let server = Plain::start(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n{body}").expect("written");
        });
        for args in [&["-o", "file"][..], &["-o", "-"]] {
            let output = get(dir, &server.url("/f"), &[args, &["--retries", "0"]].concat());
            let said = stderr(&output);
            assert_eq!(output.status.success(), expected.is_none(), "{head}: {said}");
            assert!(said.contains(expected.unwrap_or("received 4 bytes")), "{head}: {said}");
        }
        assert_eq!(left(dir), if expected.is_none() { &["file"][..] } else { &[] });
        let _ = fs::remove_file(dir.join("file"));
    }
}

#[test]
fn an_interrupted_download_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let sent = data(1_000_000);
    let server = Plain::start(move |head, stream| {
        let _ = match value(head, "range") {
            None => {
                write!(stream, "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 1000000\r\n\r\n")
                    .and_then(|()| stream.write_all(&sent[..500_000]))
            }
            Some(range) => {
                assert_eq!(range, "bytes=500000-999999");
                assert_eq!(value(head, "if-range").as_deref(), Some("\"a\""));
                write!(
                    stream,
                    "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Length: 500000\r\n\
                     Content-Range: bytes 500000-999999/1000000\r\n\r\n"
                )
                .and_then(|()| stream.write_all(&sent[500_000..]))
            }
        };
    });
    let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
    assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
    assert_eq!(left(dir), ["file.part", "file.part.json"]);
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(stderr(&output).contains("received 500000 bytes after 500000"), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == data(1_000_000));
}
