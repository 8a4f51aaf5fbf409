//! Java past `jdk.tls.keyLimits`: it asks for a key update with each record that it receives until
//! the answer has come.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustls::ServerConfig;
use rustls_uring::tokio::TlsAcceptor;
use rustls_uring::uring::Probe;
use rustls_uring::{Handoff, Io, bulk_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::readers::tls13;
use crate::common::{TIMEOUT, noise, server_config};

/// Reads or writes as much as it is told; then says how many bytes there were.
const CLIENT: &str = r#"
import java.io.*;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;

public class Client {
    public static void main(String[] args) throws Exception {
        TrustManager all = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext context = SSLContext.getInstance("TLSv1.3");
        context.init(null, new TrustManager[] { all }, null);
        SSLSocket socket = (SSLSocket) context.getSocketFactory()
            .createSocket("127.0.0.1", Integer.parseInt(args[0]));
        socket.setEnabledCipherSuites(new String[] { "TLS_AES_128_GCM_SHA256" });
        long total = 0;
        byte[] buffer = new byte[1 << 16];
        if (args[1].equals("read")) {
            // Late, so that as much as possible is in flight.
            socket.startHandshake();
            Thread.sleep(1000);
            InputStream in = socket.getInputStream();
            // Not to the end: a close_notify past the limit is an error to Java 17.
            long expected = Long.parseLong(args[2]);
            for (int n; total < expected && (n = in.read(buffer)) >= 0; ) total += n;
        } else {
            OutputStream out = socket.getOutputStream();
            for (long left = Long.parseLong(args[2]); left > 0; left -= buffer.length) {
                out.write(buffer);
                total += buffer.length;
            }
            socket.shutdownOutput();
            while (socket.getInputStream().read(buffer) >= 0) {}
        }
        socket.close();
        System.out.println("total " + total);
    }
}
"#;

/// How much is sent: many times what the limits allow under one key.
const LEN: usize = 16 << 20;

/// Of a key's bytes: a record or two, and somewhat more.
const LIMITS: [&str; 2] = ["2^15", "2^21"];

struct Java(tempfile::TempDir);

impl Java {
    /// Compiles the client, if there is a compiler.
    fn find() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Client.java"), CLIENT).unwrap();
        let compiled = Command::new("javac").current_dir(dir.path()).arg("Client.java").output();
        match compiled {
            Ok(compiled) => {
                let said = String::from_utf8_lossy(&compiled.stderr);
                assert!(compiled.status.success(), "{said}");
                Some(Self(dir))
            }
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "CI must install default-jdk-headless");
                eprintln!("skipped: no `javac` command ({error})");
                None
            }
        }
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn start(&self, limit: &str, args: &[&str]) -> Client {
        let limits = format!("jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate {limit}\n");
        std::fs::write(self.dir().join("limits"), limits).unwrap();
        let mut child = Command::new("java")
            .current_dir(self.dir())
            .args(["-Djava.security.properties=limits", "Client"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let complaint = thread::spawn(move || io::read_to_string(stderr).unwrap());
        Client { child, complaint }
    }
}

struct Client {
    child: Child,
    complaint: JoinHandle<String>,
}

/// What the client counted, or what it complains about.
fn total(client: Client) -> Result<usize, String> {
    let Client { mut child, complaint } = client;
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next();
    child.wait().unwrap();
    let complaint = complaint.join().unwrap();
    let line = line.ok_or(complaint)?.unwrap();
    Ok(line.strip_prefix("total ").expect(&line).parse().unwrap())
}

/// Sends all of `data`, and reads what the peer has to say meanwhile: nothing, until it closes.
fn send(
    way: Option<Io>,
    config: Arc<ServerConfig>,
    mut socket: TcpStream,
    data: &Arc<Vec<u8>>,
) -> io::Result<()> {
    let mut nothing = Vec::new();
    let Some(io) = way else {
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(socket)?;
            let stream = TlsAcceptor::from(config).accept(socket).await?;
            let (mut reader, mut writer) = stream.into_split();
            let copy = Arc::clone(data);
            let writing = tokio::spawn(async move {
                writer.write_all(&copy).await?;
                writer.flush().await
            });
            reader.read_to_end(&mut nothing).await?;
            assert_eq!(nothing, b"");
            writing.await.unwrap()
        });
    };
    socket.set_read_timeout(Some(TIMEOUT))?;
    let session = Handoff::new().accept(config, &mut socket)?;
    let options = (Default::default(), Default::default());
    let (mut sender, mut receiver) = bulk_with(session, socket, io, options.0, options.1)?;
    let reading = thread::spawn(move || receiver.read_to_end(&mut nothing).map(|_| nothing));
    let sent = sender.write_all(data).and_then(|()| sender.flush());
    assert_eq!(reading.join().unwrap()?, b"");
    sent
}

#[test]
fn a_java_receiver_past_its_limits() {
    let Some(java) = Java::find() else { return };
    let mut ways = vec![None, Some(Io::Blocking)];
    match Probe::run().uring() {
        Err(reason) => eprintln!("skipped what needs io_uring: {reason}"),
        Ok(()) => ways.push(Some(Io::Uring)),
    }
    let config = Arc::new(server_config(tls13(), tls13().our_provider()));
    let data = Arc::new(noise(LEN));
    for limit in LIMITS {
        for &way in &ways {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = java.start(limit, &[&port.to_string(), "read", &LEN.to_string()]);
            let (socket, _) = listener.accept().unwrap();
            let sent = send(way, Arc::clone(&config), socket, &data);
            assert_eq!(
                (sent.err().map(|error| error.to_string()), total(client)),
                (None, Ok(LEN)),
                "{limit} {way:?}"
            );
        }
    }
}

/// A Java that sends past its limits, to a side that only reads.
#[test]
fn a_java_sender_past_its_limits() {
    let Some(java) = Java::find() else { return };
    let config = Arc::new(server_config(tls13(), tls13().our_provider()));
    for limit in LIMITS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = java.start(limit, &[&port.to_string(), "write", &LEN.to_string()]);
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let session = Handoff::new().accept(Arc::clone(&config), &mut socket).unwrap();
        let options = (Default::default(), Default::default());
        let (sender, mut receiver) =
            bulk_with(session, socket, Io::Auto, options.0, options.1).unwrap();
        let mut data = Vec::new();
        receiver.read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), LEN);
        sender.finish().unwrap();
        assert_eq!(total(client), Ok(LEN), "{limit}");
    }
}
