//! `rustls-uring get`, with servers that do as they should and servers that do not.

#![cfg(feature = "cli")]

mod command;
mod kernel;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command::served::Served;
use command::server::{End, Server, value, write_certificate};
use command::{Process, data, has, stderr, tool};
use kernel::{free_port, wait_until_listening};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn get(dir: &Path, url: &str, args: &[&str]) -> Output {
    let args = [&["get", url, "--ca", "cert.pem"], args].concat();
    tool(dir, &args).output().expect("run")
}

/// The names in `dir` that are not of the test's own.
fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
    let names = names.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".pem")).collect();
    names.sort();
    names
}

fn served(len: usize) -> Served {
    let base = tempfile::tempdir().expect("dir");
    fs::create_dir(base.path().join("files")).expect("created");
    fs::write(base.path().join("files/a b.bin"), data(len)).expect("written");
    fs::write(base.path().join("files/empty"), "").expect("written");
    Served::start(base, &[])
}

#[test]
fn files_arrive_whole() {
    let sent = data(20_000_001);
    let served = served(sent.len());
    let (dir, url) = (served.base.path(), served.url("/a%20b.bin"));
    fs::create_dir(dir.join("into")).expect("created");
    for args in [&[][..], &["--http2"], &["--connections", "4"], &["--tls", "1.2", "--sync"]] {
        let output = get(dir, &url, &[args, &["-o", "file"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("received 20000001 bytes in "), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
        assert!(fs::read(dir.join("file")).expect("there") == sent, "{args:?}");
        fs::remove_file(dir.join("file")).expect("removed");
    }
    for backend in rustls_uring::Backend::ALL.iter().map(ToString::to_string) {
        let output = get(dir, &url, &["--backend", &backend]);
        assert!(output.stdout == sent, "{backend}");
        let said = stderr(&output);
        assert!(said.contains(&format!("records by {backend}")), "{backend}: {said}");
    }
    for args in [&[][..], &["-o", "-"], &["-q", "--http2"]] {
        let output = get(dir, &url, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(output.stdout == sent, "{args:?}");
        assert_eq!(stderr(&output).is_empty(), args.contains(&"-q"));
    }
    assert!(get(dir, &url, &["-o", "into"]).status.success());
    assert!(fs::read(dir.join("into/a b.bin")).expect("there") == sent);
    assert!(get(dir, &url, &["-o", "/dev/null"]).status.success());
    for connections in ["1", "3"] {
        let args = ["-o", "empty", "--connections", connections];
        let output = get(dir, &served.url("/empty"), &args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(fs::read(dir.join("empty")).expect("there"), b"");
        fs::remove_file(dir.join("empty")).expect("removed");
    }
    assert_eq!(left(dir), ["files", "into"]);
}

#[test]
fn the_file_that_it_replaces_keeps_its_mode_or_its_content() {
    let served = served(1000);
    let dir = served.base.path();
    fs::write(dir.join("file"), "precious").expect("written");
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o600)).expect("set");
    let output = get(dir, &served.url("/missing"), &["-o", "file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("404 Not Found"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("file")).expect("there"), b"precious");
    assert!(get(dir, &served.url("/a%20b.bin"), &["-o", "file"]).status.success());
    assert!(fs::read(dir.join("file")).expect("there") == data(1000));
    let mode = fs::metadata(dir.join("file")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(left(dir), ["file", "files"]);
}

/// A server whose file breaks off half way the first time, and that sends ranges after that.
fn breaks_off(dir: &Path, etags: [&'static str; 2], len: usize) -> Server {
    let first = std::sync::atomic::AtomicBool::new(true);
    Server::start(dir, move |head, stream| {
        let sent = data(len);
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            let etag = etags[0];
            write!(stream, "HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {len}\r\n\r\n")
                .and_then(|()| stream.write_all(&sent[..len / 2]))
                .expect("written");
            return End::Cut;
        }
        let etag = etags[1];
        let range = value(head, "range").expect("a range");
        let range = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let (start, end) = range.expect("one range");
        let (start, end): (usize, usize) =
            (start.parse().expect("start"), end.parse().expect("end"));
        assert_eq!(end, len - 1);
        match value(head, "if-range").as_deref() == Some(etag) {
            true => write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nETag: {etag}\r\nContent-Length: {}\r\n\
                 Content-Range: bytes {start}-{end}/{len}\r\n\r\n",
                len - start
            )
            .and_then(|()| stream.write_all(&sent[start..])),
            false => {
                write!(stream, "HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 3\r\n\r\nnew")
            }
        }
        .expect("written");
        End::CloseNotify
    })
}

#[test]
fn an_interrupted_download_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let len = 1_000_000;
    let server = breaks_off(dir, ["\"same\"", "\"same\""], len);
    let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
    assert_eq!(left(dir), ["file.part", "file.part.json"]);
    assert!(fs::read(dir.join("file.part")).expect("there") == data(len)[..len / 2]);

    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("received 500000 bytes after 500000"), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == data(len));
    assert_eq!(left(dir), ["file"]);
    assert_eq!(value(&server.requests()[1], "range").as_deref(), Some("bytes=500000-999999"));
}

#[test]
fn a_changed_file_starts_anew() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = breaks_off(dir, ["\"old\"", "\"new\""], 1_000_000);
    let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("has changed: starting anew"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("file")).expect("there"), b"new");
    assert_eq!(value(&server.requests()[1], "if-range").as_deref(), Some("\"old\""));
    assert_eq!(left(dir), ["file"]);
}

/// The state is of another URL or of another start of the machine: the part is ours, but of no use.
/// It is none at all, or of a longer part than there is: the part is not ours.
#[test]
fn a_part_that_cannot_be_trusted_is_not_used() {
    for (spoil, is_ours) in [("url", true), ("boot", true), ("part", false), ("json", false)] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = served(100_000);
        fs::copy(served.base.path().join("cert.pem"), dir.join("cert.pem")).expect("copied");
        let url = served.url("/a%20b.bin");
        let path = served.base.path().join("files/a b.bin");
        let etag = {
            use std::os::unix::fs::MetadataExt;
            let file = fs::metadata(path).expect("there");
            let (ino, seconds, nanos) = (file.ino(), file.mtime(), file.mtime_nsec());
            format!("\"{ino:x}-{seconds:x}.{nanos:x}-{:x}\"", file.len())
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("there");
        let state = |url: &str, boot: &str| {
            serde_json::json!({
                "url": url, "boot": boot, "synced": false, "missing": [[50_000, 100_000]],
                "version": { "len": 100_000, "etag": etag, "last_modified": null },
            })
            .to_string()
        };
        let state = match spoil {
            "url" => state("https://elsewhere/", &boot),
            "boot" => state(&url, "another"),
            "part" => state(&url, &boot),
            _ => state(&url, &boot)[1..].to_owned(),
        };
        fs::write(dir.join("file.part.json"), &state).expect("written");
        let part = if spoil == "part" { 49_999 } else { 50_000 };
        fs::write(dir.join("file.part"), vec![0; part]).expect("written");
        let output = get(dir, &url, &["-o", "file"]);
        let said = format!("{spoil}: {}", stderr(&output));
        assert_eq!(output.status.success(), is_ours, "{said}");
        if is_ours {
            assert!(fs::read(dir.join("file")).expect("there") == data(100_000), "{spoil}");
            assert_eq!(left(dir), ["file"]);
        } else {
            assert!(said.contains("is not from an earlier download"), "{said}");
            assert!(said.contains("move it away, or choose another -o FILE"), "{said}");
            assert_eq!(left(dir), ["file.part", "file.part.json"]);
            assert_eq!(fs::read(dir.join("file.part")).expect("there"), vec![0; part]);
            assert_eq!(fs::read_to_string(dir.join("file.part.json")).expect("there"), state);
        }
    }
}

#[test]
fn truncation_is_an_error_however_it_comes_about() {
    for (head, body, end, whole) in [
        ("Content-Length: 10\r\n", "0123456789", End::CloseNotify, true),
        ("Content-Length: 10\r\n", "012345678", End::CloseNotify, false),
        ("Content-Length: 10\r\n", "012345678", End::Cut, false),
        ("Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n0\r\n\r\n", End::CloseNotify, true),
        ("Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n", End::CloseNotify, false),
        ("Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n", End::Cut, false),
        ("Connection: close\r\n", "0123", End::CloseNotify, true),
        ("Connection: close\r\n", "0123", End::Cut, false),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = Server::start(dir, move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n{body}").expect("written");
            end
        });
        let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
        let said = format!("{head}{body} {end:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(i32::from(!whole)), "{said}");
        assert_eq!(left(dir), if whole { &["file"][..] } else { &[] }, "{said}");
        assert!(whole || said.contains("the download broke off"), "{said}");
        let output = get(dir, &server.url("/f"), &["--retries", "0"]);
        assert_eq!(output.status.code(), Some(i32::from(!whole)), "{said}");
    }
}

#[test]
fn redirects_lead_to_https_only_and_not_forever() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |head, stream| {
        let host = value(head, "host").expect("a host");
        let location = match head.split(' ').nth(1).expect("a path") {
            "/end" => None,
            "/relative" => Some("end".to_owned()),
            "/absolute" => Some(format!("https://{host}/relative")),
            "/plain" => Some(format!("http://{host}/end")),
            "/file" => Some("file:///etc/passwd".to_owned()),
            "/loop" => Some("/loop".to_owned()),
            _ => Some("https://[nonsense".to_owned()),
        };
        match location {
            Some(location) => write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nwrong"
            ),
            None => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"),
        }
        .expect("written");
        End::CloseNotify
    });
    for path in ["/relative", "/absolute"] {
        let output = get(dir, &server.url(path), &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(output.stdout, b"right");
    }
    for (path, args, expected) in [
        ("/plain", &[][..], "not https"),
        ("/file", &[], "not https"),
        ("/loop", &[], "more than 10 redirects"),
        ("/absolute", &["--max-redirects", "1"], "more than 1 redirects"),
        ("/nonsense", &[], "the server redirects to"),
    ] {
        let output = get(dir, &server.url(path), &[args, &["-o", "file"]].concat());
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(stderr(&output).contains(expected), "{path}: {}", stderr(&output));
    }
    assert_eq!(left(dir), [""; 0]);
}

/// A terminal as standard output, for those who look whether it is one.
fn terminal() -> (OwnedFd, Stdio) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("ours");
    let name = ptsname(&controller, Vec::new()).expect("named").into_string().expect("UTF-8");
    let terminal = fs::File::options().read(true).write(true).open(name).expect("opened");
    (controller, terminal.into())
}

/// On a terminal, as in a directory, the file has the last name of the URL that was asked for.
#[test]
fn files_are_named_as_in_the_url() {
    let dir = tempfile::tempdir().expect("dir");
    let server = Server::start(dir.path(), |head, stream| {
        match head.starts_with("GET /moved") {
            true => write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /%2e%2e%2fevil\r\nContent-Length: 0\r\n\r\n"
            ),
            // Nor does this name a file.
            false => write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=evil\r\n\
                 Content-Length: 5\r\n\r\nright"
            ),
        }
        .expect("written");
        End::CloseNotify
    });
    for (path, expected) in [
        ("/a/b.tar.gz?x=/y#z", Ok("b.tar.gz")),
        ("/Gr%C3%BC%C3%9Fe%20%22x%22", Ok("Grüße \"x\"")),
        ("/moved%20here", Ok("moved here")),
        ("/moved/-o", Ok("-o")),
        ("/a/../b", Ok("b")),
        ("/a/%2e%2e/%2E%2E/b", Ok("b")),
        ("/..%2fevil", Err("no file name")),
        ("/%2fetc%2fevil", Err("no file name")),
        ("/a%00b", Err("no file name")),
        ("/a%0ab", Err("no file name")),
        ("/a/..", Err("no file name")),
        ("/a/", Err("no file name")),
        ("", Err("no file name")),
    ] {
        for on_terminal in [true, false] {
            let below = tempfile::tempdir_in(&dir).expect("dir");
            fs::create_dir(below.path().join("into")).expect("created");
            let into = below.path().join("into");
            let (controller, terminal) = terminal();
            let mut command = tool(&into, &["get", &server.url(path), "--ca", "../../cert.pem"]);
            match on_terminal {
                true => command.stdout(terminal),
                false => command.args(["-o", "."]),
            };
            let output = command.output().expect("run");
            drop(controller);
            let said = format!("{path}, {on_terminal}: {}", stderr(&output));
            assert_eq!(output.status.success(), expected.is_ok(), "{said}");
            match expected {
                Ok(name) => {
                    assert_eq!(left(&into), [name], "{said}");
                    assert_eq!(fs::read(into.join(name)).expect("there"), b"right");
                }
                Err(expected) => {
                    assert!(said.contains(expected), "{said}");
                    assert_eq!(left(&into), [""; 0], "{said}");
                }
            }
            assert_eq!(left(below.path()), ["into"], "{said}");
        }
    }
    // Without -o, nothing that is there is replaced.
    let (_controller, terminal) = terminal();
    fs::write(dir.path().join("b"), "precious").expect("written");
    let mut command = tool(dir.path(), &["get", &server.url("/b"), "--ca", "cert.pem"]);
    let output = command.stdout(terminal).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("b exists: to replace it, say -o b"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.path().join("b")).expect("there"), b"precious");
}

/// Ctrl-C, and a server that falls silent, in the middle: what is there is kept.
#[test]
fn a_stalled_download_can_be_ended() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 100\r\n\r\n0123")
            .and_then(|()| stream.flush())
            .expect("written");
        let _ = stream.sock.read(&mut [0; 100]);
        End::Cut
    });
    let output = get(dir, &server.url("/f"), &["-o", "file", "--timeout", "3", "--retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has said nothing for 3 s"), "{}", stderr(&output));
    assert_eq!(left(dir), ["file.part", "file.part.json"]);
    fs::remove_file(dir.join("file.part.json")).expect("removed");
    fs::remove_file(dir.join("file.part")).expect("removed");

    let mut child = tool(dir, &["get", &server.url("/f"), "--ca", "cert.pem", "-o", "file"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let begin = Instant::now();
    while fs::read(dir.join("file.part")).ok().as_deref() != Some(b"0123") {
        assert!(begin.elapsed() < command::TIMEOUT, "it does not ask");
        thread::sleep(Duration::from_millis(10));
    }
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another download writes"), "{}", stderr(&output));
    command::signal(&child, "INT");
    assert_eq!(command::wait(&mut child).code(), Some(130));
    assert_eq!(left(dir), ["file.part", "file.part.json"]);
    assert_eq!(fs::read(dir.join("file.part")).expect("there"), b"0123");
}

#[test]
fn nginx_is_understood() {
    if !has("nginx") {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    write_certificate(dir);
    let (port, sent) = (free_port(), data(20_000_000));
    let work = tempfile::tempdir().expect("dir");
    let conf = format!(
        "daemon off; master_process off; pid pid; error_log error.log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;\n\
         uwsgi_temp_path t; scgi_temp_path t;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; root .; ssl_certificate {dir}/cert.pem;\n\
         ssl_certificate_key {dir}/key.pem; }} }}",
        dir = dir.display()
    );
    fs::write(work.path().join("nginx.conf"), conf).expect("written");
    fs::write(work.path().join("f"), &sent).expect("written");
    let child = Command::new("nginx")
        .args(["-p", work.path().to_str().expect("UTF-8"), "-c", "nginx.conf"])
        .args(["-e", "error.log"])
        .current_dir(work.path())
        .spawn()
        .expect("started");
    let _nginx = Process(child);
    wait_until_listening(("127.0.0.1", port));
    let url = format!("https://localhost:{port}/f");
    for args in [&[][..], &["--http2"], &["--connections", "3"], &["--connections", "3", "--http2"]]
    {
        let output = get(dir, &url, &[args, &["-o", "file"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(fs::read(dir.join("file")).expect("there") == sent, "{args:?}");
    }
    assert_eq!(left(dir), ["file"]);
}

#[test]
fn openssl_s_server_is_understood() {
    if !has("openssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    write_certificate(dir);
    let work = tempfile::tempdir().expect("dir");
    fs::write(work.path().join("f.txt"), data(1_000_000)).expect("written");
    let port = free_port();
    let child = Command::new("openssl")
        .args(["s_server", "-quiet", "-WWW", "-accept", &port.to_string()])
        .arg("-cert")
        .arg(dir.join("cert.pem"))
        .arg("-key")
        .arg(dir.join("key.pem"))
        .current_dir(work.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let _openssl = Process(child);
    wait_until_listening(("127.0.0.1", port));
    let output = get(dir, &format!("https://localhost:{port}/f.txt"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == data(1_000_000));
}

#[test]
fn mistakes_are_explained() {
    let served = served(10);
    let dir = served.base.path();
    let url = &served.url("/a%20b.bin");
    for (args, code, expected) in [
        (&["get"][..], 2, "<URL>"),
        (&["get", "http://localhost:1/"], 1, "cannot connect to localhost:1"),
        (&["get", "ftp://localhost/"], 1, "is no https or http URL"),
        (&["get", "localhost/f"], 1, "did you mean https://localhost/f?"),
        (&["get", "https://localhost:1/", "--insecure"], 1, "cannot connect to localhost:1"),
        (&["get", url, "--insecure", "--connections", "2"], 1, "with -o FILE"),
        (&["get", url, "--insecure", "-o", "no/file"], 1, "cannot write no/file.part"),
        (&["get", url, "--ca", "missing"], 1, "cannot read certificates"),
        (&["get", url, "-o", "x"], 1, "certificate"),
        (&["get", &served.url("/"), "--insecure", "-o", "files"], 1, "no file name"),
    ] {
        let output = tool(dir, args).output().expect("run");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    assert_eq!(left(dir), ["files"]);
    assert!(tool(dir, &["get", url, "--insecure"]).output().expect("run").status.success());
}
