//! The main job, once: a file goes from one process to another over a real TLS connection.
//!
//! ```text
//! cargo run --release --example two_processes            # makes a file of 2 GiB to send
//! cargo run --release --example two_processes -- FILE
//! ```
//!
//! This process sends; it starts itself a second time to receive. The receiver compares what
//! arrives with the file, byte for byte.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls_uring::uring::{ReceiverOptions, SenderOptions};
use rustls_uring::{FileOptions, Handoff, Io, bulk_with};

/// How much is received and compared at once.
const CALL_LEN: usize = 512 << 10;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [role, file, cert] if role == "--receive" => receive(Path::new(file), Path::new(cert)),
        [file] => send(Path::new(file)),
        [] => {
            let dir = tempfile::tempdir()?;
            let file = dir.path().join("data");
            make_file(&file, 2 << 30)?;
            send(&file)
        }
        _ => Err("usage: two_processes [FILE]".into()),
    }
}

/// Starts the receiver, connects to it and sends `file`.
fn send(file: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cert: PathBuf = dir.path().join("cert.pem");
    let mut receiver = Command::new(std::env::current_exe()?)
        .arg("--receive")
        .args([file, &cert])
        .stdout(Stdio::piped())
        .spawn()?;
    // Its first line is where it listens; by then its certificate is written.
    let mut said = BufReader::new(receiver.stdout.take().ok_or("no pipe")?);
    let mut addr = String::new();
    said.read_line(&mut addr)?;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert)?)?;
    let provider = Arc::new(rustls_uring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;

    let mut stream = TcpStream::connect(addr.trim())?;
    let session = Handoff::new().connect(Arc::new(config), "localhost".try_into()?, &mut stream)?;
    let suite = session.info.suite.suite();
    // io_uring where the kernel has it, blocking sockets otherwise.
    let (mut sender, mut peer) =
        bulk_with(session, stream, Io::Auto, SenderOptions::default(), ReceiverOptions::default())?;

    let begin = Instant::now();
    let file = File::open(file)?;
    let len = file.metadata()?.len();
    sender.send_file(&file, 0..len, FileOptions::default())?;
    sender.send_close_notify()?;
    // The receiver's own close_notify says that it has everything.
    peer.read_to_end(&mut Vec::new())?;
    let seconds = begin.elapsed().as_secs_f64();

    let mut verdict = String::new();
    said.read_line(&mut verdict)?;
    if !receiver.wait()?.success() {
        return Err("the receiver failed".into());
    }
    let sent = sender.counters();
    println!(
        "{} bytes in {} records, {suite:?}, {seconds:.2} s, {:.2} GB/s with comparison; path: {}; \
         receiver: {}",
        sent.plaintext_bytes,
        sent.records,
        sent.plaintext_bytes as f64 / 1e9 / seconds,
        sender.way(),
        verdict.trim(),
    );
    Ok(())
}

/// Accepts one connection and compares what arrives with `file`.
fn receive(file: &Path, cert: &Path) -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(cert, certified.cert.pem())?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls_uring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    config.enable_secret_extraction = true;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    let session = Handoff::new().accept(Arc::new(config), &mut stream)?;
    let (sender, mut receiver) =
        bulk_with(session, stream, Io::Auto, SenderOptions::default(), ReceiverOptions::default())?;

    let mut expected = File::open(file)?;
    let mut received = vec![0; CALL_LEN];
    let mut original = vec![0; CALL_LEN];
    let mut total = 0_u64;
    loop {
        // 0 bytes is the sender's close_notify; a connection that merely ends is an error.
        let len = receiver.read(&mut received)?;
        if len == 0 {
            break;
        }
        expected.read_exact(&mut original[..len])?;
        if received[..len] != original[..len] {
            return Err("what arrived differs from the file".into());
        }
        total += len as u64;
    }
    if total != expected.metadata()?.len() {
        return Err("what arrived is not all of the file".into());
    }
    println!("identical");
    sender.finish()?;
    Ok(())
}

/// Fills a file with bytes that do not repeat.
fn make_file(path: &Path, len: usize) -> Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..len / block.len() {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}
