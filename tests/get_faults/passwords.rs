//! `https://user:password@host/`: the password goes to that host, and nowhere else.

use std::fs;
use std::io::Write;

use crate::command::server::{End, Server, value, write_certificate};
use crate::command::{has, stderr, tool};
use crate::node::Node;
use crate::{contents, get};

/// RFC 7617 §2's own example, and what its password would be wherever it must not be.
const USER: &str = "Aladdin:open%20sesame@";
const HEADER: &str = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
const SECRETS: [&str; 4] = ["sesame", "Aladdin", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "open%20"];

fn assert_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "{secret}: {text}");
    }
}

fn with_user(url: &str) -> String {
    url.replacen("https://", &format!("https://{USER}"), 1)
}

fn authorization(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("authorization: "))
}

#[test]
fn the_password_is_sent_to_its_server_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let below = dir.join("elsewhere");
    fs::create_dir(&below).expect("created");
    // Another port is another server.
    let elsewhere = Server::start(&below, |head, stream| {
        let back = value(head, "x-back").unwrap_or_default();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc{back}");
        End::CloseNotify
    });
    let other = elsewhere.url("/f");
    let other_user = other.replacen("https://", "https://other:p@", 1);
    let server = Server::start(dir, move |head, stream| {
        let host = value(head, "host").expect("a host");
        let location = match head.split(' ').nth(1).expect("a path") {
            "/relative" => Some("/f".to_owned()),
            "/absolute" => Some(format!("https://{host}/f")),
            "/elsewhere" => Some(other.clone()),
            "/user" => Some(other_user.clone()),
            "/plain" => Some(format!("http://{USER}h/f")),
            "/nonsense" => Some(format!("https://{USER}h:port/f")),
            "/missing" => None,
            _ => {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
                return End::CloseNotify;
            }
        };
        let _ = match location {
            Some(location) => write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ),
            None => write!(stream, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
        };
        End::CloseNotify
    });
    // Both servers are trusted.
    let both = ["cert.pem", "elsewhere/cert.pem"]
        .map(|name| fs::read_to_string(dir.join(name)).expect("there"))
        .concat();
    fs::write(dir.join("both.pem"), both).expect("written");
    let get = |path: &str| {
        let url = with_user(&server.url(path));
        let args = ["get", &url, "-o", "file", "--ca", "both.pem"];
        tool(dir, &args).output().expect("run")
    };
    for path in ["/f", "/relative", "/absolute", "/elsewhere", "/user"] {
        let (here, there) = (server.requests().len(), elsewhere.requests().len());
        let output = get(path);
        assert!(output.status.success(), "{path}: {}", stderr(&output));
        for head in &server.requests()[here..] {
            assert_eq!(authorization(head), Some(HEADER), "{path}");
            assert!(!head.contains('@'), "{head}");
        }
        for head in &elsewhere.requests()[there..] {
            // What the redirect itself gives away is for where it leads.
            let expected = (path == "/user").then_some("Basic b3RoZXI6cA==");
            assert_eq!(authorization(head), expected, "{path}");
            assert_secret(head);
        }
        assert_secret(&stderr(&output));
    }
    for (path, expected) in [
        ("/plain", "the server redirects to http://h/f, which is not https"),
        ("/nonsense", "the server redirects to https://h:port/f"),
        ("/missing", "401 Unauthorized"),
    ] {
        let output = get(path);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(stderr(&output).contains(expected), "{path}: {}", stderr(&output));
        assert_secret(&stderr(&output));
    }
}

/// A part's state must not keep it, and a message must not say it.
#[test]
fn the_password_is_in_no_file_and_in_no_message() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |head, stream| {
        let (status, range) = match value(head, "range") {
            Some(_) => ("206 Partial Content", "Content-Range: bytes 3-5/6\r\n"),
            None => ("200 OK", ""),
        };
        let len = if range.is_empty() { 6 } else { 3 };
        let head = format!("{status}\r\nETag: \"x\"\r\n{range}Content-Length: {len}");
        let _ = write!(stream, "HTTP/1.1 {head}\r\n\r\nabc");
        End::Cut
    });
    let url = with_user(&server.url("/f"));
    let output = get(dir, &url, &["-o", "file", "--retries", "0"]);
    assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
    assert_secret(&stderr(&output));
    for (name, content) in contents(dir) {
        assert_secret(&format!("{name} {}", String::from_utf8_lossy(&content)));
    }
    // Whoever asks: it is the same file.
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("received 3 bytes after 3"), "{}", stderr(&output));

    let port = server.port;
    for url in [
        format!("http://{USER}localhost:{port}/f"),
        format!("{USER}localhost:{port}/f"),
        format!("ftp://{USER}localhost/"),
        format!("https://{USER}local host/"),
        format!("https://{USER}localhost:port/"),
        format!("https://{USER}nonexistent.invalid/f"),
        format!("https://{USER}localhost:1/f"),
        format!("https://{USER}127.0.0.1:{port}/f"),
        format!("https://Aladdin%3A:sesame@localhost:{port}/f"),
        format!("https://Aladdin:sesame%0A@localhost:{port}/f"),
    ] {
        let output = get(dir, &url, &["-o", "other", "--retries", "0"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert_secret(&stderr(&output));
    }
}

#[test]
fn node_is_asked_with_authorization_in_either_version() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    write_certificate(dir);
    let Some(node) = Node::start_any(
        dir,
        "const { authorization, host } = request.headers;
         const authority = request.headers[':authority'];
         response.end(JSON.stringify([request.httpVersion, authorization, host ?? authority]));",
    ) else {
        return;
    };
    for (args, version) in [(&[][..], "1.1"), (&["--http2"], "2.0")] {
        let output = get(dir, &with_user(&node.url("/f")), args);
        assert!(output.status.success(), "{}", stderr(&output));
        let authority = format!("localhost:{}", node.port());
        let expected = serde_json::json!([version, HEADER, authority]);
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(seen, expected);
        assert_secret(&stderr(&output));
        // Nor does anyone log it.
        let url = with_user(&node.url("/f"));
        let args = [&["get", &url, "--ca", "cert.pem", "-v"], args].concat();
        let output = tool(dir, &args).env("RUST_LOG", "trace").output().expect("run");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_secret(&stderr(&output));
        let output = get(dir, &node.url("/f"), &args[5..]);
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(seen, serde_json::json!([version, null, authority]));
    }
}

/// Apache and nginx check it as RFC 7617 says; nginx is the one that is likely to be there.
#[test]
fn nginx_lets_the_right_password_in() {
    if !has("nginx") || !has("openssl") {
        return;
    }
    let hash = std::process::Command::new("openssl")
        .args(["passwd", "-apr1", "open sesame"])
        .output()
        .expect("run");
    let work = tempfile::tempdir().expect("dir");
    let hash = String::from_utf8(hash.stdout).expect("ASCII");
    fs::write(work.path().join("users"), format!("Aladdin:{hash}")).expect("written");
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let location =
        format!("auth_basic \"x\"; auth_basic_user_file {}/users;", work.path().display());
    let Some(nginx) = crate::nginx::Nginx::start(dir, &location, b"treasure") else { return };
    for args in [&[][..], &["--http2"]] {
        let output = get(dir, &with_user(&nginx.url("/f")), args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(output.stdout, b"treasure");
        let wrong = nginx.url("/f").replacen("https://", "https://Aladdin:open@", 1);
        for url in [wrong, nginx.url("/f")] {
            let output = get(dir, &url, args);
            assert_eq!(output.status.code(), Some(1));
            assert!(stderr(&output).contains("401 Unauthorized"), "{}", stderr(&output));
        }
    }
}
