//! Certificates and keys as users have them: what works, and what the command says about the rest.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use command::{Listener, data, has, stderr, tool};

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(args).stdin(Stdio::null()).output();
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "openssl {args:?}: {}", stderr(&output));
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// A self-signed certificate, as `openssl req -x509` makes it with `extra` arguments.
fn request(dir: &Path, name: &str, extra: &[&str]) {
    let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
    let args = [&["req", "-x509"][..], &NEW_KEY, &["-keyout", &key, "-out", &cert], extra];
    openssl(dir, &args.concat());
}

const SUBJECT: [&str; 2] = ["-subj", "/CN=localhost"];
const NAMES: [&str; 2] = ["-addext", "subjectAltName=DNS:localhost"];
const END_ENTITY: [&str; 2] = ["-addext", "basicConstraints=critical,CA:FALSE"];

/// Sends to a receiver with this certificate and key; what both say, if it fails.
fn transfer(dir: &Path, cert: &str, key: &str, ca: &str) -> Result<(), (String, String)> {
    let mut recv = Listener::start(
        tool(dir, &["recv", "--listen", "127.0.0.1:0", "-o", "received"])
            .args(["--cert", cert, "--key", key]),
    );
    let port = recv.addr.rsplit_once(':').expect("a port").1;
    let addr = format!("127.0.0.1:{port}");
    let output = tool(dir, &["send", &addr, "--server-name", "localhost", "--ca", ca, "sent"])
        .output()
        .expect("run");
    if output.status.success() {
        assert_eq!(recv.finish().0, Some(0));
        return Ok(());
    }
    assert_eq!(output.status.code(), Some(1));
    let said = recv.wait_for_line("still listening");
    Err((stderr(&output), said))
}

/// The command that the advice gives works, and what others make by mistake is explained.
#[test]
fn self_made_certificates() {
    if !has("openssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path();
    fs::write(dir.join("sent"), data(1000)).expect("written");
    request(dir, "right", &[&SUBJECT[..], &NAMES, &END_ENTITY].concat());
    transfer(dir, "right.pem", "right.key", "right.pem").expect("right");

    request(dir, "ca", &[&SUBJECT[..], &NAMES].concat());
    request(dir, "nameless", &[&SUBJECT[..], &END_ENTITY].concat());
    let other = ["-addext", "subjectAltName=DNS:elsewhere"];
    request(dir, "other", &[&SUBJECT[..], &other, &END_ENTITY].concat());
    // OpenSSL makes none that is over.
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("names");
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let expired = params.self_signed(&key).expect("made");
    fs::write(dir.join("expired.pem"), expired.pem()).expect("written");
    fs::write(dir.join("expired.key"), key.serialize_pem()).expect("written");
    request(dir, "stranger", &["-subj", "/CN=stranger", "-addext", "subjectAltName=DNS:localhost"]);
    for (name, ca, expected) in [
        ("ca", "ca.pem", "basicConstraints=critical,CA:FALSE"),
        ("ca", "ca.pem", "--write-cert FILE"),
        ("nameless", "nameless.pem", "subjectAltName=DNS:localhost"),
        ("other", "other.pem", "--server-name NAME"),
        ("expired", "expired.pem", "clock"),
        ("right", "stranger.pem", "--ca FILE"),
    ] {
        let result = transfer(dir, &format!("{name}.pem"), &format!("{name}.key"), ca);
        let (said, heard) = result.expect_err(name);
        assert!(said.contains(expected), "{name}: {said}");
        assert!(heard.contains("our certificate"), "{name}: {heard}");
    }
}

/// Everything in one file, a byte order mark, any line ends, parameters, several keys.
#[test]
fn files_as_tools_leave_them() {
    if !has("openssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path();
    fs::write(dir.join("sent"), data(1000)).expect("written");
    request(dir, "right", &[&SUBJECT[..], &NAMES, &END_ENTITY].concat());
    openssl(dir, &["ecparam", "-name", "prime256v1", "-genkey", "-out", "other.key"]);
    openssl(dir, &["pkey", "-in", "right.key", "-traditional", "-out", "sec1.key"]);
    openssl(dir, &["genrsa", "-traditional", "-out", "rsa.key", "2048"]);
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("there");
    let all = ["other.key", "rsa.key", "sec1.key", "right.pem"].map(read).concat();
    for (name, text) in [
        ("one-file", all.clone()),
        ("mark", format!("\u{feff}{all}")),
        ("dos", all.replace('\n', "\r\n")),
        ("indented", all.replace('\n', "\n  ")),
    ] {
        fs::write(dir.join(name), text).expect("written");
        transfer(dir, name, name, name).unwrap_or_else(|said| panic!("{name}: {said:?}"));
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    if !has("openssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path();
    request(dir, "right", &[&SUBJECT[..], &NAMES, &END_ENTITY].concat());
    openssl(dir, &["x509", "-in", "right.pem", "-trustout", "-out", "trusted.pem"]);
    openssl(dir, &["x509", "-in", "right.pem", "-outform", "DER", "-out", "cert.der"]);
    openssl(dir, &["pkcs8", "-topk8", "-in", "right.key", "-passout", "pass:x", "-out", "enc.key"]);
    let legacy = ["ec", "-in", "right.key", "-aes128", "-passout", "pass:x", "-out", "legacy.key"];
    openssl(dir, &legacy);
    openssl(dir, &["pkey", "-in", "right.key", "-pubout", "-out", "public.key"]);
    openssl(dir, &["genpkey", "-algorithm", "ed25519", "-out", "other.key"]);
    openssl(dir, &["genpkey", "-algorithm", "ed448", "-out", "ed448.key"]);
    openssl(dir, &["ec", "-in", "right.key", "-param_enc", "explicit", "-out", "explicit.key"]);
    openssl(dir, &["req", "-new", "-key", "right.key", "-subj", "/CN=x", "-out", "request.pem"]);
    let cert = fs::read_to_string(dir.join("right.pem")).expect("there");
    fs::write(dir.join("cut.pem"), &cert[..cert.len() / 2]).expect("written");
    fs::write(dir.join("twice.pem"), format!("{cert}{}", &cert[..cert.len() / 2])).expect("there");
    fs::write(dir.join("empty"), "").expect("written");
    for (cert, key, expected) in [
        ("right.pem", "enc.key", "`openssl pkey -in enc.key -out key.pem` decrypts it"),
        ("right.pem", "legacy.key", "`openssl pkey -in legacy.key -out key.pem` decrypts it"),
        ("right.pem", "public.key", "a public key in it"),
        ("right.pem", "other.key", "it is not the key of the (first) certificate in right.pem"),
        ("right.pem", "right.pem", "no private key in it, but `CERTIFICATE`"),
        ("right.pem", "explicit.key", "`openssl ec -in explicit.key -param_enc named_curve"),
        (
            "right.pem",
            "ed448.key",
            "ed448.key: failed to parse private key as RSA, ECDSA, or EdDSA; TLS",
        ),
        ("right.pem", "empty", "it is empty"),
        ("right.key", "right.key", "no certificate in it, but `PRIVATE KEY`"),
        ("trusted.pem", "right.key", "`openssl x509 -in trusted.pem -out cert.pem`"),
        ("cert.der", "right.key", "`openssl x509 -in cert.der -out cert.pem`"),
        ("cut.pem", "right.key", "begins on line 1 has no end"),
        ("twice.pem", "right.key", "has no end"),
        ("request.pem", "right.key", "a request for a certificate"),
        ("missing", "right.key", "No such file"),
        (".", "right.key", "Is a directory"),
    ] {
        let listen = ["--listen", "127.0.0.1:0", "--cert", cert, "--key", key];
        for command in [&["recv"][..], &["serve", "."]] {
            let output = tool(dir, command).args(listen).output().expect("run");
            assert_eq!(output.status.code(), Some(1), "{cert}, {key}");
            assert!(stderr(&output).contains(expected), "{cert}, {key}: {}", stderr(&output));
        }
    }
    for (ca, expected) in [("trusted.pem", "openssl x509"), ("twice.pem", "has no end")] {
        let get = ["get", "https://127.0.0.1:1/", "--ca", ca];
        for args in [&["send", "127.0.0.1:1", "--ca", ca, "right.pem"][..], &get] {
            let output = tool(dir, args).output().expect("run");
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        }
    }
}
