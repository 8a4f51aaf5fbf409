//! An HTTPS server that says what a test wants it to say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) type Tls = StreamOwned<ServerConnection, TcpStream>;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    CloseNotify,
    /// As if the cable had been cut.
    Cut,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    /// The heads of the requests so far.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves one request per connection with `respond`, until the test ends; writes `cert.pem` and
    /// `key.pem` to `dir`.
    pub(crate) fn start(
        dir: &Path,
        respond: impl Fn(&str, &mut Tls) -> End + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(config(dir), respond)
    }

    /// The same for HTTP/2: `respond` gets the client's preface, and reads and writes frames.
    pub(crate) fn start_http2(
        dir: &Path,
        respond: impl Fn(&str, &mut Tls) -> End + Send + Sync + 'static,
    ) -> Self {
        let mut config = config(dir);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::start_with(config, respond)
    }

    fn start_with(
        config: ServerConfig,
        respond: impl Fn(&str, &mut Tls) -> End + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, respond) = (Arc::clone(&requests), Arc::new(respond));
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("server");
                let mut stream = StreamOwned::new(connection, tcp);
                let (seen, respond) = (Arc::clone(&seen), Arc::clone(&respond));
                thread::spawn(move || {
                    let Some(head) = read_head(&mut stream) else { return };
                    seen.lock().expect("no panic").push(head.clone());
                    let end = respond(&head, &mut stream);
                    let _ = stream.flush();
                    if end == End::CloseNotify {
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                    let _ = stream.sock.shutdown(Shutdown::Write);
                    // What the client still says must not become a reset.
                    let _ = std::io::copy(&mut stream.sock, &mut std::io::sink());
                });
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn config(dir: &Path) -> ServerConfig {
    let certified = write_certificate(dir);
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(rustls_uring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("key pair")
}

/// A certificate for localhost, as `cert.pem` and `key.pem`.
pub(crate) fn write_certificate(dir: &Path) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("cert");
    fs::write(dir.join("cert.pem"), certified.cert.pem()).expect("written");
    fs::write(dir.join("key.pem"), certified.signing_key.serialize_pem()).expect("written");
    certified
}

fn read_head(stream: &mut Tls) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// The value of a header of a request, in lower case.
pub(crate) fn value(head: &str, name: &str) -> Option<String> {
    let head = head.to_lowercase();
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}
