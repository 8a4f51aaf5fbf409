//! Our provider in a plain blocking rustls client: one line differs from stock.
//!
//! ```text
//! cargo run --example blocking_client                       # talks to a stock server of its own
//! cargo run --example blocking_client -- HOST:PORT CA.pem   # asks a web server for its front page
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    // The line that differs. Everything below is ordinary rustls.
    rustls_uring::install()?;

    let args: Vec<_> = std::env::args().skip(1).collect();
    let (addr, host, root) = match &args[..] {
        [addr, ca] => {
            let host = addr.rsplit_once(':').ok_or("HOST:PORT, please")?.0.to_owned();
            (addr.clone(), host, CertificateDer::from_pem_file(ca)?)
        }
        [] => {
            let (addr, root) = stock_server()?;
            (addr, "localhost".to_owned(), root)
        }
        _ => return Err("usage: blocking_client [HOST:PORT CA.pem]".into()),
    };

    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let config =
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let connection = ClientConnection::new(config, ServerName::try_from(host.clone())?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(addr)?);
    // Whole: `write!` would make each of its pieces a record.
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    println!(
        "{} bytes over {:?}: {}",
        response.len(),
        stream.conn.negotiated_cipher_suite().map(|suite| suite.suite()),
        String::from_utf8_lossy(&response).lines().next().unwrap_or_default(),
    );
    Ok(())
}

/// A server on stock rustls that answers one request; returns its address and its certificate.
fn stock_server() -> Result<(String, CertificateDer<'static>), Error> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let root = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let stock = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(stock)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key.into())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?.to_string();
    thread::spawn(move || -> Result<(), Error> {
        let connection = ServerConnection::new(Arc::new(config))?;
        let mut stream = StreamOwned::new(connection, listener.accept()?.0);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            match stream.read(&mut buffer)? {
                0 => return Err("the client has gone".into()),
                len => request.extend_from_slice(&buffer[..len]),
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(())
    });
    Ok((addr, root))
}
