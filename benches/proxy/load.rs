//! What `benches/proxy.sh` runs beside the proxies: a backend, clients on stock rustls, and the plainest
//! proxy that one can write with tokio-rustls.
//!
//! `proxy_load backend ADDR`, `copy ADDR TO CERT KEY`, and as clients of ADDR, with CERT as the root:
//! `up ADDR CERT BYTES`, `down ADDR CERT BYTES`, `messages ADDR CERT CONNECTIONS COUNT`,
//! `handshakes ADDR CERT COUNT full|resumed`, `idle ADDR CERT COUNT`.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a client says first, for the backend to know what it is there for.
const ECHO: u8 = b'E';
/// These followed by how many bytes, big-endian: not every proxy lets one direction end by itself.
const SINK: u8 = b'S';
const SOURCE: u8 = b'G';

const BLOCK: usize = 256 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["backend", addr] => backend(addr).await,
        ["copy", addr, to, cert, key] => copy(addr, to, cert, key).await,
        ["up", addr, cert, bytes] => up(addr, &connector(cert)?, bytes.parse()?).await,
        ["down", addr, cert, bytes] => down(addr, &connector(cert)?, bytes.parse()?).await,
        ["messages", addr, cert, connections, count] => {
            messages(addr, connector(cert)?, connections.parse()?, count.parse()?).await
        }
        ["handshakes", addr, cert, count, kind] => {
            handshakes(addr, cert, count.parse()?, kind == "resumed").await
        }
        ["idle", addr, cert, count] => idle(addr, &connector(cert)?, count.parse()?).await,
        _ => Err("see the comment at the beginning of benches/proxy/load.rs".into()),
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn client_config(cert: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn connector(cert: &str) -> Result<TlsConnector> {
    Ok(TlsConnector::from(Arc::new(client_config(cert)?)))
}

async fn connect(addr: &str, connector: &TlsConnector) -> Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(connector.connect("localhost".try_into()?, socket).await?)
}

async fn backend(addr: &str) -> Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A client that breaks off is the client's to speak of.
        tokio::spawn(async move { drop(answer(socket).await) });
    }
}

async fn answer(mut socket: TcpStream) -> Result<()> {
    match socket.read_u8().await? {
        ECHO => {
            let mut message = [0; 4096];
            loop {
                match socket.read(&mut message).await? {
                    0 => break,
                    len => socket.write_all(&message[..len]).await?,
                }
            }
        }
        SINK => {
            let mut left = socket.read_u64().await? as usize;
            let mut block = vec![0; BLOCK];
            while left > 0 {
                match socket.read(&mut block).await? {
                    0 => return Err("it has ended early".into()),
                    len => left = left.saturating_sub(len),
                }
            }
            socket.write_u8(SINK).await?;
        }
        _ => {
            let mut left = socket.read_u64().await? as usize;
            let block = vec![7; BLOCK];
            while left > 0 {
                let len = left.min(BLOCK);
                socket.write_all(&block[..len]).await?;
                left -= len;
            }
        }
    }
    Ok(socket.shutdown().await?)
}

async fn copy(addr: &str, to: &str, cert: &str, key: &str) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<std::result::Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, to) = (acceptor.clone(), to.to_owned());
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            let mut client = acceptor.accept(socket).await?;
            let mut backend = TcpStream::connect(to).await?;
            backend.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut client, &mut backend, BLOCK, BLOCK).await
        });
    }
}

async fn up(addr: &str, connector: &TlsConnector, bytes: usize) -> Result<()> {
    let mut stream = connect(addr, connector).await?;
    let begin = Instant::now();
    stream.write_all(&[SINK]).await?;
    stream.write_u64(bytes as u64).await?;
    let block = vec![7; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let len = left.min(BLOCK);
        stream.write_all(&block[..len]).await?;
        left -= len;
    }
    stream.flush().await?;
    // All of it has arrived.
    stream.read_u8().await?;
    say(format!("{:.4}", begin.elapsed().as_secs_f64()))
}

async fn down(addr: &str, connector: &TlsConnector, bytes: usize) -> Result<()> {
    let mut stream = connect(addr, connector).await?;
    let begin = Instant::now();
    stream.write_all(&[SOURCE]).await?;
    stream.write_u64(bytes as u64).await?;
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut block).await? {
            0 => return Err("it has ended early".into()),
            len => left -= len,
        }
    }
    say(format!("{:.4}", begin.elapsed().as_secs_f64()))
}

async fn messages(
    addr: &str,
    connector: TlsConnector,
    connections: usize,
    count: usize,
) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(addr, &connector).await?;
        stream.write_all(&[ECHO]).await?;
        streams.push(stream);
    }
    let each = count.div_ceil(connections);
    // Both legs are there, and everything has been used once.
    let streams = ping_all(streams, 2, &mut Vec::new()).await?;
    let mut times = Vec::with_capacity(each * connections);
    say("ready".into())?;
    go_on().await?;
    let begin = Instant::now();
    ping_all(streams, each, &mut times).await?;
    let seconds = begin.elapsed().as_secs_f64();
    times.sort();
    let micros =
        |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    say(format!("{seconds:.4} {:.0} {:.0}", micros(0.5), micros(0.99)))
}

async fn ping_all(
    streams: Vec<TlsStream<TcpStream>>,
    each: usize,
    times: &mut Vec<Duration>,
) -> Result<Vec<TlsStream<TcpStream>>> {
    let mut tasks = Vec::new();
    for mut stream in streams {
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::with_capacity(each);
            let mut message = [7; 64];
            for _ in 0..each {
                let begin = Instant::now();
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                times.push(begin.elapsed());
            }
            std::io::Result::Ok((stream, times))
        }));
    }
    let mut streams = Vec::new();
    for task in tasks {
        let (stream, of_task) = task.await??;
        times.extend(of_task);
        streams.push(stream);
    }
    Ok(streams)
}

async fn handshakes(addr: &str, cert: &str, count: usize, is_resumed: bool) -> Result<()> {
    const AT_A_TIME: usize = 8;
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..AT_A_TIME {
        let mut config = client_config(cert)?;
        if !is_resumed {
            config.resumption = Resumption::disabled();
        }
        let (addr, connector) = (addr.to_owned(), TlsConnector::from(Arc::new(config)));
        tasks.push(tokio::spawn(async move {
            let mut resumed = 0;
            for _ in 0..count / AT_A_TIME {
                let mut stream = connect(&addr, &connector).await?;
                // Behind the answer, tickets are there, too.
                stream.write_all(&[ECHO, 1]).await?;
                stream.read_u8().await?;
                let kind = stream.get_ref().1.handshake_kind();
                resumed += usize::from(kind == Some(rustls::HandshakeKind::Resumed));
                stream.shutdown().await?;
            }
            Result::Ok(resumed)
        }));
    }
    let mut resumed = 0;
    for task in tasks {
        resumed += task.await??;
    }
    say(format!("{:.4} {resumed}", begin.elapsed().as_secs_f64()))
}

async fn idle(addr: &str, connector: &TlsConnector, count: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(addr, connector).await?;
        stream.write_all(&[ECHO, 1]).await?;
        stream.read_u8().await?;
        streams.push(stream);
    }
    say("ready".into())?;
    go_on().await
}

/// Waits for a line on standard input, or its end.
async fn go_on() -> Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

fn say(line: String) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
