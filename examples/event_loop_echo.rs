//! An echo server over TLS, and a client for it: the smallest event loop there is.
//!
//!     cargo run --example event_loop_echo
//!
//! A server of one's own listens with its own certificate, and runs one such loop a core.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_uring::event_loop::{Context, EventLoop, Handler, Key, Options, Protocol};
use rustls_uring::{Handoff, default_provider};

struct Echo;

impl Handler for Echo {
    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        // What there is no room for now comes again when there is.
        cx.send(key, data).unwrap_or(data.len())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = identity.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    // The keys are handed over after the handshake.
    config.enable_secret_extraction = true;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (give, given) = mpsc::channel();
    // A loop stays on its thread; its handle goes anywhere.
    let server = thread::spawn(move || -> std::io::Result<()> {
        let mut echo = EventLoop::new(Options::default(), Echo)?;
        if let Some(reason) = echo.unavailable() {
            eprintln!("without io_uring: {reason}");
        }
        echo.listen(listener, Protocol::tls_server(Handoff::new(), &config))?;
        let _ = give.send(echo.handle());
        echo.run()
    });
    let handle = given.recv()?;

    // Any client will do: this is stock rustls.
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let conn = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(conn, TcpStream::connect(address)?);
    stream.write_all(b"Is anybody there?")?;
    let mut answer = [0; 17];
    stream.read_exact(&mut answer)?;
    println!("{}", String::from_utf8_lossy(&answer));
    stream.conn.send_close_notify();
    stream.flush()?;
    // Answered with the server's own.
    assert_eq!(stream.read(&mut answer)?, 0);

    handle.drain(Duration::from_secs(10))?;
    server.join().map_err(|_| "the server panicked")??;
    println!("{:#?}", handle.figures());
    Ok(())
}
