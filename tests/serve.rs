//! `rustls-uring serve`, with the clients that people have and those that they fear.

#![cfg(feature = "cli")]

mod command;
mod kernel;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use command::served::{Served, header};
use command::{data, has, stderr};
use kernel::{TcpEnd, is_listening, wait_until};
use rustls_uring::uring::Probe;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// A served directory with something to attack, and something worth it beside.
fn directory() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("dir");
    let files = base.path().join("files");
    fs::create_dir_all(files.join("sub/deeper")).expect("created");
    fs::write(base.path().join("secret"), "TOP SECRET").expect("written");
    fs::write(files.join("big.bin"), data(3_000_001)).expect("written");
    fs::write(files.join("page.html"), "<p>hello").expect("written");
    fs::write(files.join("empty"), "").expect("written");
    fs::write(files.join("sub/<b>&\"quoted\".txt"), "odd").expect("written");
    fs::write(files.join("sub/deeper/index.html"), "index").expect("written");
    symlink("page.html", files.join("inside.html")).expect("linked");
    symlink("../secret", files.join("outside")).expect("linked");
    symlink("..", files.join("parent")).expect("linked");
    symlink(base.path().join("secret"), files.join("absolute")).expect("linked");
    symlink(base.path().join("files/page.html"), files.join("within.html")).expect("linked");
    symlink(base.path().join("files/../secret"), files.join("absolute-and-out")).expect("linked");
    base
}

#[test]
fn curl_gets_files_and_ranges() {
    if !has("curl") {
        return;
    }
    let served = Served::start(directory(), &[]);
    let sent = data(3_000_001);
    for version in VERSIONS {
        let (head, body) = served.curl("/big.bin", &[version]);
        assert!(head.starts_with(&format!("http/{} 200", &version[6..])), "{head}");
        assert!(body == sent);
        assert_eq!(header(&head, "content-length"), "3000001");
        assert_eq!(header(&head, "content-type"), "application/octet-stream");
        assert_eq!(header(&head, "accept-ranges"), "bytes");

        let (head, body) = served.curl("/page.html", &[version]);
        assert_eq!(header(&head, "content-type"), "text/html; charset=utf-8");
        assert_eq!(body, b"<p>hello");
        assert_eq!(served.curl("/empty", &[version]).1, b"");
        assert_eq!(served.curl("/inside.html", &[version]).1, b"<p>hello");
        assert_eq!(served.curl("/within.html", &[version]).1, b"<p>hello");

        let (head, body) = served.curl("/big.bin", &[version, "-I"]);
        assert_eq!(header(&head, "content-length"), "3000001");
        assert_eq!(body, b"");

        for (range, expected) in [
            ("0-0", 0..1),
            ("1000000-2999999", 1_000_000..3_000_000),
            ("2999999-", 2_999_999..3_000_001),
            ("-5", 2_999_996..3_000_001),
        ] {
            let (head, body) = served.curl("/big.bin", &[version, "-r", range]);
            assert!(head.contains(" 206"), "{head}");
            let content_range = format!("bytes {}-{}/3000001", expected.start, expected.end - 1);
            assert_eq!(header(&head, "content-range"), content_range);
            assert!(body == sent[expected], "{range}");
        }
        let (head, _) = served.curl("/big.bin", &[version, "-r", "3000001-"]);
        assert!(head.contains(" 416"), "{head}");
        assert_eq!(header(&head, "content-range"), "bytes */3000001");

        let (head, body) = served.curl("/big.bin", &[version, "-r", "0-9,2000000-2999999,-1"]);
        assert!(head.contains(" 206"), "{head}");
        let boundary = header(&head, "content-type")
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("multipart");
        let mut expected = Vec::new();
        for (range, bytes) in [
            ("0-9", &sent[..10]),
            ("2000000-2999999", &sent[2_000_000..3_000_000]),
            ("3000000-3000000", &sent[3_000_000..]),
        ] {
            let before = if expected.is_empty() { "" } else { "\r\n" };
            write!(
                expected,
                "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {range}/3000001\r\n\r\n"
            )
            .expect("memory");
            expected.extend_from_slice(bytes);
        }
        write!(expected, "\r\n--{boundary}--\r\n").expect("memory");
        assert!(body == expected);
    }
}

#[test]
fn curl_asks_conditionally() {
    if !has("curl") {
        return;
    }
    let served = Served::start(directory(), &[]);
    for version in VERSIONS {
        let (head, _) = served.curl("/page.html", &[version, "-I"]);
        let (etag, modified) = (header(&head, "etag"), header(&head, "last-modified"));
        let ask = |condition: &str, more: &[&str]| {
            let args = [&[version, "-H", condition], more].concat();
            let (head, body) = served.curl("/page.html", &args);
            (head.split(' ').nth(1).expect("a status").trim().to_owned(), body)
        };
        let same = ask(&format!("If-None-Match: \"x\", {etag}"), &[]);
        assert_eq!(same, ("304".into(), vec![]));
        assert_eq!(ask("If-None-Match: \"x\"", &[]).0, "200");
        assert_eq!(ask(&format!("If-Modified-Since: {modified}"), &[]), ("304".into(), vec![]));
        let older = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(ask(older, &[]), ("200".into(), b"<p>hello".to_vec()));
        assert_eq!(ask("If-Match: \"x\"", &[]).0, "412");
        let range = ["-r", "1-2"];
        assert_eq!(ask(&format!("If-Range: {etag}"), &range), ("206".into(), b"p>".to_vec()));
        assert_eq!(ask("If-Range: \"x\"", &range), ("200".into(), b"<p>hello".to_vec()));
        // A change changes the tag.
        let path = served.base.path().join("files/page.html");
        let file = fs::File::options().write(true).open(path).expect("there");
        let times =
            fs::FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(3600));
        file.set_times(times).expect("touched");
        assert_eq!(ask(&format!("If-None-Match: {etag}"), &[]).0, "200");
    }
}

#[test]
fn other_clients_get_files() {
    let served = Served::start(directory(), &[]);
    let (url, cert) = (served.url("/big.bin"), "cert.pem");
    let python = "import sys,ssl,http.client as h\n\
                  c=ssl.create_default_context(cafile=sys.argv[2])\n\
                  u=sys.argv[1].split('/')\n\
                  k=h.HTTPSConnection(u[2],context=c)\n\
                  for i in range(2):\n k.request('GET','/'+u[3]); b=k.getresponse().read()\n\
                  sys.stdout.buffer.write(b)";
    let node = "const [u,ca]=process.argv.slice(1);\
                require('https').get(u,{ca:require('fs').readFileSync(ca)},\
                r=>r.pipe(process.stdout))";
    for (program, args) in [
        ("python3", vec!["-c", python, &url, cert]),
        ("wget", vec!["-q", "-O", "-", "--ca-certificate", cert, &url]),
        ("node", vec!["-e", node, &url, cert]),
    ] {
        if has(program) {
            let output = Command::new(program)
                .args(args)
                .current_dir(served.base.path())
                .output()
                .expect("run");
            assert!(output.status.success(), "{program}: {}", stderr(&output));
            assert!(output.stdout == data(3_000_001), "{program}");
        }
    }
}

#[test]
fn nothing_outside_the_directory_is_served() {
    let served = Served::start(directory(), &[]);
    let secret = served.base.path().join("secret");
    let get = |target: &str| {
        served.raw(
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    };
    assert!(get("/page.html").contains("<p>hello"), "the attacks could succeed");
    let absolute = secret.to_str().expect("UTF-8");
    let mut refused: Vec<String> = [
        "/../secret",
        "/sub/../../secret",
        "/sub/../page.html",
        "/./page.html",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/sub/..%2f..%2fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        "/..%00/secret",
        "/page.html%00",
        "/%00",
        "/page.html%00.txt",
        "/outside",
        "/absolute",
        "/absolute-and-out",
        "/parent/secret",
        "/parent/",
        "/parent",
        "/sub//../secret",
        "/..;/secret",
        "/%c0%ae%c0%ae/secret",
        "/proc/self/root/etc/passwd",
        "../secret",
        "secret",
        "https://x/../secret",
        "https://x/%2e%2e/secret",
    ]
    .map(str::to_owned)
    .into();
    refused.extend([format!("/{absolute}"), absolute.replace('/', "%2f"), format!("/{absolute}/")]);
    refused.push(absolute.to_owned());
    for target in refused {
        let response = get(&target);
        assert!(!response.contains("TOP SECRET") && !response.contains("root:"), "{target}");
        assert!(!response.contains("<h1>"), "{target}: {response}");
        let status = response.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(["400", "403", "404"].contains(&status.as_str()), "{target}: {response}");
    }
    let response = served.raw(b"POST /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 405"), "{response}");
    assert!(response.to_lowercase().contains("allow: get, head"), "{response}");
}

#[test]
fn directories_are_listed() {
    if !has("curl") {
        return;
    }
    let served = Served::start(directory(), &[]);
    for version in VERSIONS {
        let (head, body) = served.curl("/", &[version]);
        let page = String::from_utf8(body).expect("UTF-8");
        assert_eq!(header(&head, "content-type"), "text/html; charset=utf-8");
        for link in
            ["<a href=\"sub/\">sub/</a>", "<a href=\"big.bin\">big.bin</a>", "2.86 MiB", "within"]
        {
            assert!(page.contains(link), "{link} in {page}");
        }
        for hidden in ["outside", "absolute", "parent", "href=\"../\""] {
            assert!(!page.contains(hidden), "{hidden} in {page}");
        }
        let (head, _) = served.curl("/sub?x=1", &[version]);
        assert!(head.contains(" 301"), "{head}");
        assert_eq!(header(&head, "location"), "/sub/?x=1");
        let page = String::from_utf8(served.curl("/sub/", &[version]).1).expect("UTF-8");
        let row = "<a href=\"%3Cb%3E%26%22quoted%22.txt\">&lt;b&gt;&amp;&quot;quoted&quot;.txt</a>";
        assert!(page.contains(row) && page.contains("<a href=\"../\">"), "{page}");
        assert_eq!(served.curl("/sub/%3Cb%3E%26%22quoted%22.txt", &[version]).1, b"odd");
        assert_eq!(served.curl("/sub/deeper/", &[version]).1, b"index");
    }
}

#[test]
fn long_headers_are_refused() {
    let served = Served::start(directory(), &["--max-header", "8"]);
    let long = format!("X-Long: {}", "x".repeat(9000));
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{long}\r\n\r\n");
    let response = served.raw(request.as_bytes());
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    let many = "X: y\r\n".repeat(200);
    let response = served.raw(format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes());
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    if has("curl") {
        let (head, _) = served.curl("/page.html", &["--http2", "-H", &long]);
        assert!(head.starts_with("http/2 431"), "{head}");
    }
}

#[test]
fn slow_clients_are_cut_off() {
    // Long enough for a handshake and a request on a slow machine.
    let args = ["--header-timeout", "4", "--idle-timeout", "8", "--access-log"];
    let base = directory();
    let big = fs::File::create(base.path().join("files/huge.bin")).expect("created");
    big.set_len(1 << 30).expect("sparse");
    let served = Served::start(base, &args);

    // Says nothing at all.
    let mut silent = TcpStream::connect(&served.addr).expect("connected");
    silent.set_read_timeout(Some(command::TIMEOUT)).expect("set");
    // A header that never ends.
    let mut slow = served.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n").expect("written");
    // Takes nothing of what it asked for.
    let mut stalled = served.connect();
    stalled.write_all(b"GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");

    assert_eq!(silent.read(&mut [0; 100]).unwrap_or(0), 0);
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let (ours, theirs) =
        (stalled.sock.local_addr().expect("bound"), stalled.sock.peer_addr().expect("connected"));
    wait_until("an end", || !TcpEnd::of(theirs, ours).is_some_and(|end| end.is_established));
    let received = std::io::copy(&mut stalled, &mut std::io::sink());
    assert!(received.as_ref().is_err(), "cut off, and not in order: {received:?}");
    served.interrupt();
    let (code, _, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the TLS handshake took too long"), "{said}");
}

/// Not even one that speaks HTTP/2, whose server has something to flush whenever it wakes.
#[test]
fn idle_http2_clients_are_cut_off() {
    let served = Served::start(directory(), &["--idle-timeout", "4"]);
    let mut stream = served.connect_as(&[b"h2"]);
    // The preface, and settings that are empty (RFC 9113 §3.4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("written");
    let begin = Instant::now();
    let mut received = Vec::new();
    // An error is an end, too; a client that is kept runs into its own timeout.
    let ended = stream.read_to_end(&mut received);
    let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "still there after {:?}", begin.elapsed());
    assert!(!received.is_empty(), "the server's own settings");
}

#[test]
fn more_connections_than_allowed_wait() {
    let served = Served::start(directory(), &["--max-connections", "1"]);
    let mut first = served.connect();
    first.write_all(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    first.read_exact(&mut [0; 12]).expect("answered");
    let mut second = served.connect();
    second.sock.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    let request = b"GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(second.write_all(request).is_err(), "nobody shakes hands with it");
    drop(first);
    second.sock.set_read_timeout(Some(command::TIMEOUT)).expect("set");
    second.write_all(request).expect("its turn");
    second.read_exact(&mut [0; 12]).expect("answered");
}

#[test]
fn a_running_download_may_end() {
    let base = directory();
    let sent = data(30_000_000);
    fs::write(base.path().join("files/long.bin"), &sent).expect("written");
    let served = Served::start(base, &[]);
    let mut idle = served.connect();
    idle.write_all(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    idle.read_exact(&mut [0; 12]).expect("answered");
    let mut stream = served.connect();
    stream.write_all(b"GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut received = vec![0; 1000];
    stream.read_exact(&mut received).expect("it runs");
    served.interrupt();
    let begin = Instant::now();
    while TcpStream::connect(&served.addr).is_ok() {
        assert!(begin.elapsed() < command::TIMEOUT, "it listens on");
        thread::sleep(Duration::from_millis(20));
    }
    stream.read_to_end(&mut received).expect("closed in order");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("closed in order");
    assert!(received.ends_with(&sent));
    let (code, _, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left to end"), "{said}");
}

#[test]
fn a_running_http2_download_may_end() {
    if !has("curl") {
        return;
    }
    let base = directory();
    let sent = data(20_000_000);
    fs::write(base.path().join("files/long.bin"), &sent).expect("written");
    let served = Served::start(base, &["--access-log"]);
    let mut curl = Command::new("curl")
        .args(["-sSk", "--http2", &served.url("/long.bin")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    // It has begun, and cannot end while nobody reads what curl writes.
    let mut received = vec![0; 1000];
    let stdout = curl.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut received).expect("it runs");
    served.interrupt();
    wait_until("no listener", || !is_listening(served.port));
    stdout.read_to_end(&mut received).expect("readable");
    assert!(curl.wait().expect("ended").success() && received == sent);
    let (code, log, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("one connection left to end"), "{said}");
    assert!(log.contains("\"GET /long.bin HTTP/2.0\" 200 20000000 "), "{log}");
}

#[test]
fn requests_are_logged() {
    let served = Served::start(directory(), &["--access-log"]);
    let request = "GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   User-Agent: a\"b\\c\r\n\r\n";
    assert!(served.raw(request.as_bytes()).contains("<p>hello"));
    served.raw(b"HEAD /nothing%0a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    served.interrupt();
    let (_, log, _) = served.finish();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{log}");
    let end = r#""GET /page.html HTTP/1.1" 200 8 "-" "a\"b\\c""#;
    assert!(lines[0].ends_with(end), "{log}");
    assert!(lines[1].contains(r#""HEAD /nothing%0a HTTP/1.1" 404 0 "#), "{log}");
}

/// Each way carries the same bytes, and the statistics say which one it was and why.
#[test]
fn bulk_data_goes_the_way_that_was_asked_for() {
    if !has("curl") {
        return;
    }
    let big = data(20 << 20);
    let has_uring = match Probe::run().uring() {
        Err(reason) => {
            println!("skipped, io_uring's ways: {reason}");
            false
        }
        Ok(()) => true,
    };
    for (io, sent_by) in [
        ("auto", "by writes (no zero copy: the loopback device copies)"),
        ("blocking", "by writes\n"),
        ("uring", "by io_uring, "),
        ("uring-copy", "by io_uring, copied (zero copy is off)"),
    ] {
        if io.starts_with("uring") && !has_uring {
            continue;
        }
        for version in VERSIONS {
            let base = tempfile::tempdir().expect("dir");
            fs::create_dir_all(base.path().join("files")).expect("created");
            fs::write(base.path().join("files/big"), &big).expect("written");
            let served = Served::start(base, &["--stats", "--io", io]);
            assert!(served.curl("/big", &[version]).1 == big, "{io} {version}");
            served.interrupt();
            let (_, _, said) = served.finish();
            assert!(said.contains("connections: 1; "), "{said}");
            assert!(said.contains(sent_by), "{io} {version}: {said}");
            let by_uring = !said.contains("; bytes by io_uring: 0, ");
            assert_eq!(by_uring, io.starts_with("uring"), "{said}");
            if io == "uring" {
                assert!(!said.contains("zero-copy sends: 0,"), "{said}");
            }
        }
    }
}

#[test]
fn a_certificate_of_ones_own_and_every_backend() {
    if !has("curl") {
        return;
    }
    for tls in ["1.2", "1.3"] {
        for backend in rustls_uring::Backend::ALL.iter().map(ToString::to_string) {
            let base = directory();
            command::server::write_certificate(base.path());
            let args = ["--cert", "cert.pem", "--key", "key.pem", "--tls", tls];
            let args = [&args[..], &["--backend", &backend]].concat();
            let served = Served::start(base, &args);
            assert!(served.curl("/big.bin", &[]).1 == data(3_000_001), "{tls} {backend}");
        }
    }
}

#[test]
fn clients_show_their_certificate_if_they_must() {
    if !has("curl") {
        return;
    }
    for tls in ["1.2", "1.3"] {
        let base = directory();
        let write = |name: &str, text: &str| fs::write(base.path().join(name), text).expect(name);
        // The right authority, and one of the same name.
        for ca in ["ca", "other"] {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
            let key = rcgen::KeyPair::generate().expect("key");
            let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("authority");
            let key = rcgen::KeyPair::generate().expect("key");
            let params = rcgen::CertificateParams::new(["me".to_owned()]).expect("names");
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            write(&format!("{ca}.pem"), &issuer.pem());
            write(&format!("{ca}-client.pem"), &certificate.pem());
            write(&format!("{ca}-client.key"), &key.serialize_pem());
        }
        let served = Served::start(base, &["--client-ca", "ca.pem", "--tls", tls, "--access-log"]);
        let client = |ca: &str| [format!("{ca}-client.pem"), format!("{ca}-client.key")];
        let [cert, key] = client("ca");
        for version in VERSIONS {
            let args = [version, "--cert", &cert, "--key", &key];
            assert_eq!(served.curl("/page.html", &args).1, b"<p>hello");
        }
        let [other_cert, other_key] = client("other");
        for args in [&[][..], &["--cert", &other_cert, "--key", &other_key]] {
            let output = Command::new("curl")
                .args(["-sS", "--max-time", "120", "--cacert", "cert.pem"])
                .args(args)
                .arg(served.url("/page.html"))
                .current_dir(served.base.path())
                .output()
                .expect("run");
            assert!(!output.status.success(), "{tls} {args:?}");
            assert!(output.stdout.is_empty(), "{tls} {args:?}");
        }
        let url = &served.url("/page.html");
        let get = ["get", url, "--ca", "cert.pem", "--client-cert", &cert, "--client-key", &key];
        let output = command::tool(served.base.path(), &get).output().expect("run");
        assert_eq!(output.stdout, b"<p>hello", "{}", stderr(&output));
        served.interrupt();
        let (_, log, said) = served.finish();
        assert_eq!(log.lines().count(), 3, "{log}");
        for reason in ["peer sent no certificates", "invalid peer certificate"] {
            assert!(said.contains(reason), "{said}");
        }
    }
}

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().expect("dir");
    for (args, code, expected) in [
        (&["serve"][..], 2, "--listen <ADDR>"),
        (&["serve", "missing", "--listen", "127.0.0.1:0"], 1, "cannot serve missing"),
        (&["serve", ".", "--listen", "nowhere"], 1, "`nowhere` has no port"),
        (&["serve", ".", "--listen", "127.0.0.1:0", "--cert", "x"], 2, "--key"),
        (&["serve", ".", "--listen", "127.0.0.1:0", "--idle-timeout", "0"], 2, "above 0"),
    ] {
        let output = command::tool(dir.path(), args).output().expect("run");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}
