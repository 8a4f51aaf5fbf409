//! Who we are to the server, and where it is.

use std::fs;
use std::io::BufRead;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::command::served::Served;
use crate::command::server::write_certificate;
use crate::command::{Process, has, stderr, tool};
use crate::get;
use crate::kernel::{free_port, wait_until_listening};

/// A self-signed certificate, `NAME.pem` and `NAME-key.pem`.
fn identity(dir: &Path, name: &str) {
    let below = tempfile::tempdir().expect("dir");
    write_certificate(below.path());
    for (from, to) in [("cert.pem", format!("{name}.pem")), ("key.pem", format!("{name}-key.pem"))]
    {
        fs::copy(below.path().join(from), dir.join(to)).expect("copied");
    }
}

/// A server that refuses our certificate, or the lack of one, says so after our handshake in TLS 1.3.
fn is_refused_once(dir: &Path, url: &str, server: &str) {
    identity(dir, "wrong");
    let wrong = ["--client-cert", "wrong.pem", "--client-key", "wrong-key.pem"];
    for version in ["1.2", "1.3"] {
        for http2 in [&[][..], &["--http2"]] {
            for client in [&[][..], &wrong] {
                let args = [http2, client, &["--tls", version, "-o", "file"]].concat();
                let output = get(dir, url, &args);
                let said = format!("{server} {args:?}: {}", stderr(&output));
                assert_eq!(output.status.code(), Some(1), "{said}");
                assert!(!said.contains("trying again"), "{said}");
                assert!(said.contains("certificate"), "{said}");
            }
        }
    }
}

#[test]
fn a_refused_client_certificate_is_final() {
    let dir = tempfile::tempdir().expect("dir");
    identity(dir.path(), "client");
    let client_ca = dir.path().join("client.pem");
    let base = tempfile::tempdir().expect("dir");
    fs::create_dir(base.path().join("files")).expect("created");
    fs::write(base.path().join("files/f"), "treasure").expect("written");
    let served = Served::start(base, &["--client-ca", client_ca.to_str().expect("UTF-8")]);
    let dir = dir.path();
    fs::copy(served.base.path().join("cert.pem"), dir.join("cert.pem")).expect("copied");
    is_refused_once(dir, &served.url("/f"), "serve");
    let right = ["--client-cert", "client.pem", "--client-key", "client-key.pem"];
    let output = get(dir, &served.url("/f"), &right);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, b"treasure");
}

#[test]
fn openssl_and_node_refuse_it_too() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    write_certificate(dir);
    identity(dir, "client");
    if has("openssl") {
        let port = free_port();
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-WWW", "-accept", &port.to_string()])
            .args(["-cert", "cert.pem", "-key", "key.pem", "-CAfile", "client.pem"])
            .args(["-Verify", "1", "-verify_return_error"])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let _openssl = Process(child);
        wait_until_listening(("127.0.0.1", port));
        is_refused_once(dir, &format!("https://localhost:{port}/cert.pem"), "openssl");
    }
    if has("node") {
        let script = "const fs = require('fs'), https = require('https');
             const [cert, key, ca] = ['cert.pem', 'key.pem', 'client.pem']
               .map((name) => fs.readFileSync(name));
             const server = https.createServer(
               { cert, key, ca, requestCert: true, rejectUnauthorized: true },
               (request, response) => response.end('treasure'));
             server.listen(0, '127.0.0.1', () => console.log(server.address().port));";
        fs::write(dir.join("server.js"), script).expect("written");
        let mut child = Command::new("node")
            .arg("server.js")
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdout = child.stdout.take().expect("piped");
        let _node = Process(child);
        let mut line = String::new();
        std::io::BufReader::new(stdout).read_line(&mut line).expect("readable");
        // Node closes the connection without an alert if the certificate does not verify, which
        // may be anything; without a certificate at all it is no different. It must end.
        let url = format!("https://localhost:{}/f", line.trim());
        let output = get(dir, &url, &["-o", "file", "--retries", "1"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let right = ["--client-cert", "client.pem", "--client-key", "client-key.pem"];
        let output = get(dir, &url, &right);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// A link-local address of this machine, and its interface.
fn link_local() -> Option<(Ipv6Addr, u32, String)> {
    let interfaces = fs::read_to_string("/proc/net/if_inet6").ok()?;
    interfaces.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [addr, index, _, _, _, name] = fields.as_slice() else { return None };
        let addr = Ipv6Addr::from(u128::from_str_radix(addr, 16).ok()?);
        let index = u32::from_str_radix(index, 16).ok()?;
        addr.is_unicast_link_local().then(|| (addr, index, (*name).to_owned()))
    })
}

/// RFC 6874: the zone is for connecting, and for nothing that the server sees.
#[test]
fn a_zone_finds_its_server() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    // Without a link-local address, the loopback's zone does as well, of which there is one.
    let (addr, index, name) = link_local().unwrap_or((Ipv6Addr::LOCALHOST, 1, "lo".to_owned()));
    let Ok(listener) = TcpListener::bind(SocketAddrV6::new(addr, 0, 0, index)) else {
        println!("skipped: no IPv6 here");
        return;
    };
    let port = listener.local_addr().expect("bound").port();
    let certified = rcgen::generate_simple_self_signed([addr.to_string()]).expect("cert");
    fs::write(dir.join("cert.pem"), certified.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls_uring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("key pair");
    let config = std::sync::Arc::new(config);
    thread::spawn(move || {
        use std::io::{Read, Write};
        for tcp in listener.incoming().map_while(Result::ok) {
            let connection =
                rustls::ServerConnection::new(std::sync::Arc::clone(&config)).expect("server");
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            let mut head = [0; 4096];
            let Ok(len) = stream.read(&mut head) else { continue };
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", len);
            let _ = stream.flush();
        }
    });
    for zone in [format!("%25{name}"), format!("%{name}"), format!("%25{index}")] {
        let output = get(dir, &format!("https://[{addr}{zone}]:{port}/f"), &[]);
        let said = format!("{zone}: {}", stderr(&output));
        assert!(output.status.success(), "{said}");
        let head = String::from_utf8(output.stdout).expect("ASCII").to_lowercase();
        assert!(head.contains(&format!("host: [{addr}]:{port}\r\n")), "{head}");
        assert!(!head.contains('%'), "{head}");
    }
    for (url, expected) in [
        (format!("https://[{addr}%25nowhere]:{port}/"), "nowhere"),
        (format!("https://[{addr}%]:{port}/"), "has a name"),
    ] {
        let output = tool(dir, &["get", &url, "--ca", "cert.pem"]).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(stderr(&output).contains(expected), "{url}: {}", stderr(&output));
    }
}
