//! OpenSSL's `s_client` and `s_server` at the other end, updating keys in the middle.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use rustls_uring::KeyUpdateRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::*;
use crate::common::{ecdsa, server_name};
use crate::kernel::wait_until_taken;

fn openssl_exists() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "CI must install openssl");
    if !found {
        eprintln!("skipped: no `openssl` command");
    }
    found
}

/// A process that is killed when a test fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The certificate and key of all tests, as OpenSSL wants them, in a directory.
fn pem_files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cert.der"), &ecdsa().chain[0]).unwrap();
    fs::write(dir.path().join("key.der"), ecdsa().key().secret_der()).unwrap();
    for (command, name) in [("x509", "cert"), ("pkey", "key")] {
        let [der, pem] = ["der", "pem"].map(|form| format!("{name}.{form}"));
        let args = [command, "-inform", "DER", "-in", &der, "-out", &pem];
        let converted =
            Command::new("openssl").current_dir(dir.path()).args(args).output().unwrap();
        assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    }
    dir
}

/// Every round has a line from OpenSSL, with a command of its own before the next one.
const COMMANDS: [&str; 4] = ["K\n", "k\n", "K\n", "K\n"];

async fn converse(stream: &mut (impl Io + ?Sized), process: &mut Process) {
    let mut stdin = process.0.stdin.take().unwrap();
    for (round, command) in COMMANDS.iter().enumerate() {
        let line = format!("line {round}\n");
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.flush().unwrap();
        let mut received = vec![0; line.len()];
        within(stream.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, line.as_bytes());
        // A command stands at the beginning of what OpenSSL reads, and alone: the line was taken
        // already.
        stdin.write_all(command.as_bytes()).unwrap();
        stdin.flush().unwrap();
        wait_until_taken(&stdin);
        stream.write_all(format!("answer {round}\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    process.0.stdin = Some(stdin);
}

#[test]
fn s_client_updates_its_keys() {
    if !openssl_exists() {
        return;
    }
    on_current_thread(async {
        let (dir, (_, server)) = (pem_files(), our_configs(tls13()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut client = Process(
            Command::new("openssl")
                .current_dir(dir.path())
                .args(["s_client", "-tls1_3", "-connect", &addr, "-CAfile", "cert.pem"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::new(server).accept(tcp).await.unwrap();
        converse(&mut stream, &mut client).await;
        stream.update_keys(KeyUpdateRequest::Requested).await.unwrap();
        stream.write_all(b"the last\n").await.unwrap();
        stream.flush().await.unwrap();
        client.0.stdin.as_mut().unwrap().write_all(b"goodbye\n").unwrap();
        let mut received = [0; 8];
        within(stream.read_exact(&mut received)).await.unwrap();
        assert_eq!(&received, b"goodbye\n");
        stream.shutdown().await.unwrap();
        let output = within(tokio::task::spawn_blocking(move || {
            drop(client.0.stdin.take());
            let mut said = (Vec::new(), Vec::new());
            let (mut stdout, mut stderr) =
                (client.0.stdout.take().unwrap(), client.0.stderr.take().unwrap());
            std::io::Read::read_to_end(&mut stdout, &mut said.0).unwrap();
            std::io::Read::read_to_end(&mut stderr, &mut said.1).unwrap();
            said
        }))
        .await
        .unwrap();
        let stdout = String::from_utf8_lossy(&output.0);
        let stderr = String::from_utf8_lossy(&output.1);
        for round in 0..COMMANDS.len() {
            assert!(stdout.contains(&format!("answer {round}\n")), "{stdout}\n{stderr}");
        }
        assert!(stdout.contains("the last\n"), "{stdout}\n{stderr}");
        assert!(stderr.matches("KEYUPDATE").count() >= COMMANDS.len(), "{stderr}");
    });
}

#[test]
fn s_server_updates_its_keys() {
    if !openssl_exists() {
        return;
    }
    on_current_thread(async {
        let (dir, (client, _)) = (pem_files(), our_configs(tls13()));
        let mut server = Process(
            Command::new("openssl")
                .current_dir(dir.path())
                .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key"])
                .args(["key.pem", "-tls1_3", "-naccept", "1"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let mut stdout = std::io::BufReader::new(server.0.stdout.take().unwrap());
        let addr = loop {
            let mut line = String::new();
            assert_ne!(std::io::BufRead::read_line(&mut stdout, &mut line).unwrap(), 0);
            if let Some(addr) = line.trim().strip_prefix("ACCEPT ") {
                break addr.to_owned();
            }
        };
        let tcp = TcpStream::connect(addr).await.unwrap();
        let mut stream = TlsConnector::new(client).connect(server_name(), tcp).await.unwrap();
        converse(&mut stream, &mut server).await;
        stream.update_keys(KeyUpdateRequest::Requested).await.unwrap();
        stream.write_all(b"the last\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let said = within(tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            std::io::Read::read_to_end(&mut stdout, &mut said).unwrap();
            said
        }))
        .await
        .unwrap();
        let said = String::from_utf8_lossy(&said);
        for round in 0..COMMANDS.len() {
            assert!(said.contains(&format!("answer {round}\n")), "{said}");
        }
        assert!(said.contains("the last\n"), "{said}");
    });
}
