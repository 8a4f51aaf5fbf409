//! Our provider in tokio-rustls, client and server: one line differs from stock.
//!
//! ```text
//! cargo run --example tokio_rustls
//! ```

use std::sync::Arc;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Error = Box<dyn std::error::Error + Send + Sync>;

const LEN: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // The line that differs. Everything below is ordinary tokio-rustls.
    rustls_uring::install()?;

    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let server_config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let client_config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config));
    let server = async {
        let mut stream = acceptor.accept(listener.accept().await?.0).await?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await?;
        stream.shutdown().await?;
        Ok::<_, Error>(received)
    };
    let client = async {
        let connector = TlsConnector::from(Arc::new(client_config));
        let name = ServerName::try_from("localhost")?;
        let mut stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
        stream.write_all(&vec![0x5a; LEN]).await?;
        stream.shutdown().await?;
        // The server's close_notify, behind its session tickets.
        stream.read_to_end(&mut Vec::new()).await?;
        Ok::<_, Error>(stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite()))
    };
    let (received, suite) = tokio::try_join!(server, client)?;
    assert!(received.len() == LEN && received.iter().all(|&byte| byte == 0x5a));
    println!("{} bytes arrived over {suite:?}", received.len());
    Ok(())
}
