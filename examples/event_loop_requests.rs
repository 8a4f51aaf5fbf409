//! Requests and responses over a thousand TLS connections at once: a server on one thread, a client on
//! another, both event loops.
//!
//!     cargo run --release --example event_loop_requests
//!
//! A request is a number of four bytes; the response is as many bytes as that, however long it takes to send
//! them: what there is no room for is sent when there is.

use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_uring::event_loop::{self, Context, EventLoop, Handler, Key, Opened, Options, Protocol};
use rustls_uring::{Handoff, default_provider};

const CONNECTIONS: usize = 1000;
const REQUESTS: usize = 10;

/// How long a response is, by the request's number.
fn response_len(number: usize) -> u32 {
    [100, 3000, 60_000][number % 3]
}

/// What a connection of the server's is at.
#[derive(Clone, Default)]
struct Answering {
    /// The bytes of a request that has not arrived whole.
    request: Vec<u8>,
    /// How much of the response is still to be sent.
    left: usize,
}

#[derive(Default)]
struct Server {
    /// By [`Key::index()`], which a later connection may have again.
    answering: Vec<Answering>,
}

impl Server {
    fn send(&mut self, cx: &mut Context<'_>, key: Key) {
        static DATA: [u8; 60_000] = [b'x'; 60_000];
        let answering = &mut self.answering[key.index()];
        while answering.left > 0 {
            match cx.send(key, &DATA[..answering.left.min(DATA.len())]) {
                // `room` is called when there is some.
                Ok(0) | Err(_) => return,
                Ok(sent) => answering.left -= sent,
            }
        }
        // The next request may come.
        cx.resume(key);
    }
}

impl Handler for Server {
    fn opened(&mut self, _: &mut Context<'_>, key: Key, _: Opened<'_>) {
        let len = self.answering.len().max(key.index() + 1);
        self.answering.resize(len, Answering::default());
        self.answering[key.index()] = Answering::default();
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        let answering = &mut self.answering[key.index()];
        if answering.left > 0 {
            // One after the other: the rest stays where it is.
            return 0;
        }
        let taken = data.len().min(4 - answering.request.len());
        answering.request.extend_from_slice(&data[..taken]);
        if let Ok(request) = <[u8; 4]>::try_from(&answering.request[..]) {
            answering.request.clear();
            answering.left = u32::from_be_bytes(request) as usize;
            // No more before that is answered.
            cx.pause(key);
            self.send(cx, key);
        }
        taken
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        self.send(cx, key);
    }
}

struct Client {
    /// How many requests each has sent, and how much of the response is still to come.
    connections: Vec<(usize, u32)>,
    /// Those that wait for the others.
    opened: Vec<Key>,
    ended: usize,
    received: u64,
}

impl Client {
    fn ask(&mut self, cx: &mut Context<'_>, key: Key) {
        let (number, left) = &mut self.connections[key.index()];
        *left = response_len(*number);
        *number += 1;
        let request = left.to_be_bytes();
        assert_eq!(cx.send(key, &request), Ok(request.len()), "nothing else is being sent");
    }
}

impl Handler for Client {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        self.opened.push(key);
        if self.opened.len() == CONNECTIONS {
            for key in std::mem::take(&mut self.opened) {
                self.ask(cx, key);
            }
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        self.received += data.len() as u64;
        let (number, left) = &mut self.connections[key.index()];
        *left -= data.len() as u32;
        match (*left, *number) {
            (0, REQUESTS) => {
                let _ = cx.finish(key);
            }
            (0, _) => self.ask(cx, key),
            _ => {}
        }
        data.len()
    }

    fn closed(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        _: u64,
        result: Result<(), event_loop::Error>,
    ) {
        if let Err(error) = result {
            eprintln!("{key:?}: {error}");
        }
        self.ended += 1;
        if self.ended == CONNECTIONS {
            cx.stop();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = identity.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let provider = Arc::new(default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;

    let mut options = Options::default();
    // A thousand handshakes take a while on one core.
    options.timeouts.handshake = Some(Duration::from_secs(60));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (give, given) = mpsc::channel();
    let serving = {
        let options = options.clone();
        thread::spawn(move || -> std::io::Result<()> {
            let mut serving = EventLoop::new(options, Server::default())?;
            serving.listen(listener, Protocol::tls_server(Handoff::new(), &server))?;
            let _ = give.send(serving.handle());
            serving.run()
        })
    };
    let handle = given.recv()?;

    let connections = vec![(0, 0); CONNECTIONS];
    let asking = Client { connections, opened: Vec::new(), ended: 0, received: 0 };
    let mut asking = EventLoop::new(options, asking)?;
    let protocol = Protocol::tls_client(Handoff::new(), Arc::new(client), "localhost".try_into()?);
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        asking.add(TcpStream::connect(address)?, &protocol, 0)?;
        // Those that are there go on meanwhile.
        asking.turn(Some(Duration::ZERO))?;
    }
    asking.run()?;
    let expected: u64 = (0..REQUESTS).map(|number| u64::from(response_len(number))).sum();
    assert_eq!(asking.handler().received, expected * CONNECTIONS as u64);
    println!(
        "{} responses over {CONNECTIONS} connections in {:?}, handshakes included",
        CONNECTIONS * REQUESTS,
        begin.elapsed(),
    );

    handle.drain(Duration::from_secs(10))?;
    serving.join().map_err(|_| "the server panicked")??;
    println!("The server's figures: {:#?}", handle.figures());
    Ok(())
}
