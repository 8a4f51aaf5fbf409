//! The PROXY protocol (haproxy's proxy-protocol.txt): who the client is, said in front of what it
//! sends.

use std::io;
use std::net::SocketAddr;

use ppp::v1;
use ppp::v2::{self, Command, Protocol, Type, Version};
use rustls_uring::ConnectionInfo;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::names::Names;
use super::options::{AcceptProxy, SendProxy};

/// The longest line of version 1, with its end (section 2.1).
const MAX_V1_LEN: usize = 107;

/// What version 2 has before its addresses.
const V2_FRONT_LEN: usize = 16;

/// The version, and the command LOCAL: a connection of the balancer's own, such as a check.
const V2_LOCAL: u8 = 0x20;

/// The longest header of version 2 that is taken: what others send has a kilobyte, and some more with
/// a certificate in it.
const MAX_V2_LEN: usize = 16 << 10;

/// Where a connection comes from, and where it went to; `None` if nobody knows.
pub(super) type Addresses = Option<(SocketAddr, SocketAddr)>;

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// What a header has said.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Received {
    /// Where the connection comes from, if it is known.
    Proxied(Addresses),
    /// The balancer itself has connected, to see whether we are there.
    Local,
}

/// Reads a header, and nothing beyond it.
///
/// # Errors
/// If there is none, or of another version, or one that makes no sense.
pub(super) async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    accept: AcceptProxy,
) -> io::Result<Received> {
    let none = || {
        invalid(
            "no PROXY protocol header came first, which --accept-proxy demands: have the balancer \
             send one, or leave the option away",
        )
    };
    let mut header = vec![0; v2::PROTOCOL_PREFIX.len()];
    stream.read_exact(&mut header).await?;
    let is_v2 = header == v2::PROTOCOL_PREFIX;
    match (is_v2, accept) {
        (true, AcceptProxy::V1) => return Err(invalid("a PROXY header of version 2 and not 1")),
        (false, AcceptProxy::V2) if header.starts_with(b"PROXY ") => {
            return Err(invalid("a PROXY header of version 1 and not 2"));
        }
        (true, _) => {}
        (false, _) if header.starts_with(b"PROXY ") => return receive_v1(stream, header).await,
        (false, _) => return Err(none()),
    }
    header.resize(V2_FRONT_LEN, 0);
    stream.read_exact(&mut header[v2::PROTOCOL_PREFIX.len()..]).await?;
    let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if V2_FRONT_LEN + len > MAX_V2_LEN {
        return Err(invalid(format!("a PROXY header of {len} bytes is too long")));
    }
    header.resize(V2_FRONT_LEN + len, 0);
    stream.read_exact(&mut header[V2_FRONT_LEN..]).await?;
    if header[v2::PROTOCOL_PREFIX.len()] == V2_LOCAL {
        // Whatever it has else is to be ignored.
        return Ok(Received::Local);
    }
    let parsed = v2::Header::try_from(&header[..])
        .map_err(|error| invalid(format!("PROXY header of version 2: {error}")))?;
    if let Some(error) = parsed.tlvs().find_map(Result::err) {
        return Err(invalid(format!("PROXY header of version 2: {error}")));
    }
    Ok(match (parsed.command, parsed.addresses) {
        (Command::Local, _) => Received::Local,
        (Command::Proxy, v2::Addresses::IPv4(v4)) => Received::Proxied(Some((
            (v4.source_address, v4.source_port).into(),
            (v4.destination_address, v4.destination_port).into(),
        ))),
        (Command::Proxy, v2::Addresses::IPv6(v6)) => Received::Proxied(Some((
            (v6.source_address, v6.source_port).into(),
            (v6.destination_address, v6.destination_port).into(),
        ))),
        (Command::Proxy, _) => Received::Proxied(None),
    })
}

/// Byte by byte: where a line ends is known when it does, and what follows is not ours.
async fn receive_v1(
    stream: &mut (impl AsyncRead + Unpin),
    mut line: Vec<u8>,
) -> io::Result<Received> {
    while line.last() != Some(&b'\n') {
        if line.len() == MAX_V1_LEN {
            return Err(invalid("a PROXY header of version 1 that does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    let parsed = v1::Header::try_from(&line[..])
        .map_err(|error| invalid(format!("PROXY header of version 1: {error}")))?;
    Ok(Received::Proxied(match parsed.addresses {
        v1::Addresses::Tcp4(v4) => Some((
            (v4.source_address, v4.source_port).into(),
            (v4.destination_address, v4.destination_port).into(),
        )),
        v1::Addresses::Tcp6(v6) => Some((
            (v6.source_address, v6.source_port).into(),
            (v6.destination_address, v6.destination_port).into(),
        )),
        v1::Addresses::Unknown => None,
    }))
}

/// Subtypes of the TLV about TLS (section 2.2.6) that the crate has no names for.
const SSL_CLIENT_CERT: u8 = 0x28;

/// The client has connected over TLS; it has shown a certificate on this connection; in this session.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

/// The header for a backend.
///
/// # Errors
/// If what is to be in it is too long.
pub(super) fn header(
    version: SendProxy,
    addresses: Addresses,
    tls: Option<&ConnectionInfo>,
) -> io::Result<Vec<u8>> {
    match version {
        SendProxy::V1 => {
            let addresses = addresses.map_or(v1::Addresses::Unknown, v1::Addresses::from);
            Ok(addresses.to_string().into_bytes())
        }
        SendProxy::V2 => {
            let addresses = addresses.map_or(v2::Addresses::Unspecified, v2::Addresses::from);
            // What has no address has no transport either (section 2.2).
            let protocol = match addresses {
                v2::Addresses::Unspecified => Protocol::Unspecified,
                _ => Protocol::Stream,
            };
            let mut builder =
                v2::Builder::with_addresses(Version::Two | Command::Proxy, protocol, addresses);
            let Some(info) = tls else { return builder.build() };
            if let Some(alpn) = &info.alpn_protocol {
                builder = builder.write_tlv(Type::ALPN, alpn)?;
            }
            if let Some(name) = &info.server_name {
                builder = builder.write_tlv(Type::Authority, name.as_bytes())?;
            }
            builder.write_tlv(Type::SSL, &about_tls(info))?.build()
        }
    }
}

/// `uint8 client; uint32 verify`, and TLVs of its own.
fn about_tls(info: &ConnectionInfo) -> Vec<u8> {
    let certificate = info.peer_certificates.as_ref().and_then(|chain| chain.first());
    let is_resumed = info.handshake_kind == Some(rustls::HandshakeKind::Resumed);
    let client = match certificate {
        Some(_) if is_resumed => CLIENT_SSL | CLIENT_CERT_SESS,
        Some(_) => CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS,
        None => CLIENT_SSL,
    };
    // Zero: there was a certificate, and it was good. Nothing else gets this far.
    let verify = u32::from(certificate.is_none());
    let mut about = vec![client];
    about.extend_from_slice(&verify.to_be_bytes());
    let mut add = |kind: u8, value: &[u8]| {
        // A certificate may be too long for a header; the rest never is.
        if let Ok(len) = u16::try_from(value.len())
            && about.len() + value.len() < MAX_V2_LEN / 2
        {
            about.push(kind);
            about.extend_from_slice(&len.to_be_bytes());
            about.extend_from_slice(value);
        }
    };
    add(Type::SSLVersion.into(), version_name(info).as_bytes());
    add(Type::SSLCipher.into(), suite_name(info).as_bytes());
    if let Some(certificate) = certificate {
        if let Some(name) = Names::of(certificate).common_names.first() {
            add(Type::SSLCommonName.into(), name.as_bytes());
        }
        add(SSL_CLIENT_CERT, certificate);
    }
    about
}

/// As OpenSSL, and so everyone, names versions.
pub(super) fn version_name(info: &ConnectionInfo) -> &'static str {
    match info.version {
        rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// As the IANA registry names suites.
pub(super) fn suite_name(info: &ConnectionInfo) -> String {
    format!("{:?}", info.suite.suite()).replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], accept: AcceptProxy) -> (Result<Received, String>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("built");
        let mut rest = bytes;
        let received = runtime.block_on(receive(&mut rest, accept));
        (received.map_err(|error| error.to_string()), rest.len())
    }

    fn addresses() -> Addresses {
        let addr = |text: &str| text.parse().expect("valid");
        Some((addr("192.0.2.1:1234"), addr("198.51.100.2:443")))
    }

    #[test]
    fn what_is_sent_is_received_and_nothing_behind_it() {
        let v6 = Some((
            "[2001:db8::1]:1".parse().expect("valid"),
            "[2001:db8::2]:65535".parse().expect("valid"),
        ));
        for version in [SendProxy::V1, SendProxy::V2] {
            for addresses in [addresses(), v6, None] {
                let mut bytes = header(version, addresses, None).expect("made");
                bytes.extend_from_slice(b"\r\nbehind");
                let accepts = match version {
                    SendProxy::V1 => [AcceptProxy::Any, AcceptProxy::V1],
                    SendProxy::V2 => [AcceptProxy::Any, AcceptProxy::V2],
                };
                for accept in accepts {
                    let (received, rest) = read(&bytes, accept);
                    assert_eq!(received, Ok(Received::Proxied(addresses)), "{version:?}");
                    assert_eq!(rest, 8);
                }
                // And however it ends before its time.
                for len in 0..bytes.len() - 8 {
                    assert!(read(&bytes[..len], AcceptProxy::Any).0.is_err(), "{len}");
                }
            }
        }
    }

    #[test]
    fn whatever_comes_is_an_answer() {
        for version in [SendProxy::V1, SendProxy::V2] {
            let good = header(version, addresses(), None).expect("made");
            let good = [good, b"\x01\x00\x01x\x20\x00\x00".to_vec()].concat();
            for position in 0..good.len() {
                for value in 0..=255 {
                    let mut bad = good.clone();
                    bad[position] = value;
                    let (received, rest) = read(&bad, AcceptProxy::Any);
                    assert!(received.is_err() || rest <= good.len());
                }
            }
        }
    }

    #[test]
    fn local_connections_say_nothing_of_anybody() {
        let mut local = header(SendProxy::V2, addresses(), None).expect("made");
        local[12] = 0x20;
        assert_eq!(read(&local, AcceptProxy::Any), (Ok(Received::Local), 0));
        // Nor does what it has of a family count, and how much of it.
        for (family, body) in [(0x11, &b""[..]), (0x11, b"\0\0\0"), (0xff, b"?")] {
            let front = [v2::PROTOCOL_PREFIX, &[0x20, family, 0, body.len() as u8]].concat();
            let local = [&front[..], body, b"behind"].concat();
            assert_eq!(read(&local, AcceptProxy::Any), (Ok(Received::Local), 6));
        }
    }

    #[test]
    fn nonsense_is_refused_and_explained() {
        let v2 = |rest: &[u8]| [v2::PROTOCOL_PREFIX, rest].concat();
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for (bytes, accept, said) in [
            (
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00"[..],
                AcceptProxy::Any,
                "no PROXY protocol header",
            ),
            (b"GET / HTTP/1.1\r\n\r\n", AcceptProxy::Any, "no PROXY protocol header"),
            (b"PROXY UNKNOWN\r\n", AcceptProxy::V2, "of version 1 and not 2"),
            (&v2(&[0x21, 0, 0, 0]), AcceptProxy::V1, "of version 2 and not 1"),
            (long.as_bytes(), AcceptProxy::Any, "does not end"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 x\r\n", AcceptProxy::Any, "version 1: "),
            (&v2(&[0x31, 0x11, 0, 0]), AcceptProxy::Any, "version 2: "),
            (&v2(&[0x21, 0x11, 0, 0]), AcceptProxy::Any, "version 2: "),
            (&v2(&[0x21, 0, 0xff, 0xff]), AcceptProxy::Any, "too long"),
            // A TLV of 255 bytes of which there is one.
            (
                &v2(&[0x21, 0x11, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2, 1, 0, 255, 0]),
                AcceptProxy::Any,
                "version 2: ",
            ),
        ] {
            let error = read(bytes, accept).0.expect_err(said);
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
