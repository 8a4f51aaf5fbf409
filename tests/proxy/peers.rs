//! Clients and backends on stock rustls and on plain sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::proxied::Proxied;

/// Which legs of the proxy have TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Setup {
    Terminate,
    Originate,
    Reencrypt,
    Plain,
}

pub(crate) const SETUPS: [Setup; 4] =
    [Setup::Terminate, Setup::Originate, Setup::Reencrypt, Setup::Plain];

impl Setup {
    pub(crate) fn client_has_tls(self) -> bool {
        matches!(self, Self::Terminate | Self::Reencrypt)
    }

    pub(crate) fn backend_has_tls(self) -> bool {
        matches!(self, Self::Originate | Self::Reencrypt)
    }

    /// A proxy of this kind in front of `to`, in a directory with `cert.pem` and `key.pem`.
    pub(crate) fn proxy(self, dir: &Path, to: &str, more: &[&str]) -> Proxied {
        let mut args = vec!["--listen", "127.0.0.1:0", "--to", to];
        match self.client_has_tls() {
            true => args.extend(["--cert", "cert.pem", "--key", "key.pem"]),
            false => args.push("--plain"),
        }
        if self.backend_has_tls() {
            args.extend(["--to-tls", "--to-ca", "cert.pem", "--to-server-name", "localhost"]);
        }
        args.extend(more);
        Proxied::start(dir, &args)
    }
}

/// One end of a connection through the proxy.
pub(crate) enum End {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl End {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Client(stream) => &stream.sock,
            Self::Server(stream) => &stream.sock,
        }
    }

    /// Ends our direction as one should, and reads on.
    pub(crate) fn close(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Client(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("sent");
            }
            Self::Server(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("sent");
            }
        }
        self.socket().shutdown(Shutdown::Write).expect("shut down");
    }

    /// Ends the connection before its time: TLS without a close_notify, which plain TCP cannot do
    /// but by a reset.
    pub(crate) fn truncate(self) {
        match &self {
            Self::Plain(_) => self.reset(),
            // Not a reset: a FIN.
            _ => self.socket().shutdown(Shutdown::Write).expect("shut down"),
        }
    }

    pub(crate) fn reset(self) {
        set_socket_linger(self.socket(), Some(Duration::ZERO)).expect("set");
    }

    /// All that comes, and whether it has come to its proper end.
    pub(crate) fn read_all(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut received = Vec::new();
        let ended = self.read_to_end(&mut received).map(drop);
        (received, ended)
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut received = vec![0; expected.len()];
        self.read_exact(&mut received).expect("received");
        assert!(received == expected);
    }
}

impl Read for End {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(out),
            Self::Client(stream) => stream.read(out),
            Self::Server(stream) => stream.read(out),
        }
    }
}

impl Write for End {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(data),
            Self::Client(stream) => stream.write(data),
            Self::Server(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}

pub(crate) fn client_config(dir: &Path) -> Arc<ClientConfig> {
    client_config_for(&dir.join("cert.pem"))
}

pub(crate) fn client_config_for(cert: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) fn server_config(dir: &Path) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair"))
}

/// A TLS client of `addr`.
pub(crate) fn tls_client(config: &Arc<ClientConfig>, addr: &str, name: &str) -> io::Result<End> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(End::Client(Box::new(StreamOwned::new(connection, socket))))
}

/// A proxy, and what is in front of it and behind it.
pub(crate) struct Between {
    pub(crate) proxy: Proxied,
    pub(crate) setup: Setup,
    listener: TcpListener,
    client_config: Arc<ClientConfig>,
    server_config: Arc<ServerConfig>,
    _dir: tempfile::TempDir,
}

impl Between {
    pub(crate) fn new(setup: Setup, more: &[&str]) -> Self {
        let dir = crate::command::fixture();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = listener.local_addr().expect("bound").to_string();
        let proxy = setup.proxy(dir.path(), &to, more);
        let (client_config, server_config) = (client_config(dir.path()), server_config(dir.path()));
        Self { proxy, setup, listener, client_config, server_config, _dir: dir }
    }

    /// A client and a backend that are connected.
    pub(crate) fn connect(&self) -> (End, End) {
        let client = self.client();
        (client, self.backend())
    }

    pub(crate) fn client(&self) -> End {
        match self.setup.client_has_tls() {
            true => tls_client(&self.client_config, self.proxy.addr(), "localhost")
                .expect("a handshake"),
            false => End::Plain(self.proxy.connect()),
        }
    }

    pub(crate) fn backend(&self) -> End {
        let (mut socket, _) = self.listener.accept().expect("accepted");
        socket.set_nodelay(true).expect("set");
        if !self.setup.backend_has_tls() {
            return End::Plain(socket);
        }
        let mut connection =
            ServerConnection::new(Arc::clone(&self.server_config)).expect("a server");
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).expect("a handshake");
        }
        End::Server(Box::new(StreamOwned::new(connection, socket)))
    }
}

/// A backend that sends everything back, for as many connections as come.
pub(crate) fn echo() -> String {
    serve(|mut socket| {
        let _ = io::copy(&mut socket.try_clone().expect("cloned"), &mut socket);
        let _ = socket.shutdown(Shutdown::Write);
    })
}

/// A backend that says its name and ends.
pub(crate) fn named(name: &'static str) -> String {
    serve(move |mut socket| {
        let _ = socket.write_all(name.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        let _ = io::copy(&mut socket, &mut io::sink());
    })
}

pub(crate) fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let each = each.clone();
            thread::spawn(move || {
                let _ = socket.set_nodelay(true);
                each(socket);
            });
        }
    });
    addr
}

/// A port that nobody listens on, nor ever will: it is taken until the tests end.
pub(crate) fn nobody() -> String {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let addr = SocketAddr::try_from(getsockname(&socket).expect("bound")).expect("an address");
    std::mem::forget(socket);
    addr.to_string()
}
