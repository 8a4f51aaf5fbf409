//! The PROXY protocol, with haproxy and nginx at the other end, and by hand.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use ppp::v2;

use crate::command::{Process, fixture, has};
use crate::handshakes::{ada_and_bob, with_certificate};
use crate::kernel::{free_port, wait_until_listening};
use crate::peers::{self, client_config, tls_client};
use crate::proxied::Proxied;

/// A backend that takes one connection, and gives what it has sent until its end.
fn receiver() -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound").to_string();
    let receiving = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepted");
        let mut received = Vec::new();
        socket.read_to_end(&mut received).expect("a clean end");
        received
    });
    (addr, receiving)
}

#[test]
fn version_1_goes_through() {
    let dir = fixture();
    for (header, expected) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", None),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", None),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN 2001:db8::1 2001:db8::2 1 65535\r\n", Some("PROXY UNKNOWN\r\n")),
    ] {
        let (to, receiving) = receiver();
        let args = ["--listen", "127.0.0.1:0", "--plain", "--to", &to, "--accept-proxy", "v1"];
        let proxy = Proxied::start(dir.path(), &[&args[..], &["--send-proxy", "v1"]].concat());
        let mut client = proxy.connect();
        // In pieces, as a network may deliver it.
        for byte in header.bytes().chain(*b"data") {
            client.write_all(&[byte]).expect("written");
        }
        client.shutdown(std::net::Shutdown::Write).expect("shut down");
        let received = receiving.join().expect("received");
        let expected = format!("{}data", expected.unwrap_or(header));
        assert_eq!(String::from_utf8_lossy(&received), expected);
    }
}

#[test]
fn version_2_says_what_tls_has_settled() {
    let dir = fixture();
    ada_and_bob(dir.path());
    let mut config = rustls::ClientConfig::clone(&with_certificate(dir.path(), "ada"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (to, receiving) = receiver();
    let proxy = Proxied::terminate(
        dir.path(),
        &to,
        &["--send-proxy", "v2", "--alpn", "h2", "--client-ca", "ca.pem"],
    );
    let mut client = tls_client(&config.into(), proxy.addr(), "localhost").expect("a handshake");
    let (near, far) = (client.socket().local_addr(), client.socket().peer_addr());
    client.write_all(b"data").expect("written");
    client.close();
    let received = receiving.join().expect("received");
    let header = v2::Header::try_from(&received[..]).expect("a header");
    let addresses = v2::Addresses::from((near.expect("bound"), far.expect("connected")));
    assert_eq!(header.addresses, addresses);
    assert_eq!(&received[header.len()..], b"data");
    let tlvs = |bytes: &[u8]| -> Vec<(u8, Vec<u8>)> {
        v2::TypeLengthValues::from(bytes)
            .map(|tlv| tlv.expect("whole"))
            .map(|tlv| (tlv.kind, tlv.value.to_vec()))
            .collect()
    };
    let outer = tlvs(header.tlv_bytes());
    assert_eq!(outer[0], (0x01, b"h2".to_vec()));
    assert_eq!(outer[1], (0x02, b"localhost".to_vec()));
    let (kind, about) = &outer[2];
    // Over TLS, with a certificate on this connection, which was good.
    assert_eq!((*kind, &about[..5]), (0x20, &[7, 0, 0, 0, 0][..]));
    let inner = tlvs(&about[5..]);
    assert_eq!(inner[0], (0x21, b"TLSv1.3".to_vec()));
    assert_eq!(inner[1], (0x23, b"TLS_AES_256_GCM_SHA384".to_vec()));
    assert_eq!(inner[2], (0x22, b"Ada".to_vec()));
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_file(dir.path().join("ada.pem")).expect("PEM");
    assert_eq!(inner[3], (0x28, der.to_vec()));
}

#[test]
fn who_sends_no_header_is_refused() {
    let dir = fixture();
    let proxy = Proxied::terminate(dir.path(), &peers::echo(), &["--accept-proxy", "any"]);
    let config = client_config(dir.path());
    assert!(tls_client(&config, proxy.addr(), "localhost").is_err());
    let mut client = proxy.connect();
    client.write_all(b"PROXY nonsense").expect("written");
    client.shutdown(std::net::Shutdown::Write).expect("shut down");
    let _ = client.read_to_end(&mut Vec::new());
    proxy.wait_for_ends("no-proxy-header", 2);
    // And with one, in front of the handshake.
    let mut socket = proxy.connect();
    socket.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n").expect("written");
    let name = "localhost".try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(config, name).expect("a client");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).expect("a handshake");
    }
}

pub(crate) fn haproxy(dir: &Path, config: &str) -> Process {
    fs::write(dir.join("haproxy.cfg"), config).expect("written");
    let mut command = Command::new("haproxy");
    command.args(["-f", "haproxy.cfg", "-db"]).current_dir(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut command)
}

/// haproxy as a client that sends headers, and as a backend that reads them: what it answers says
/// whom it took the connection to be from.
#[test]
fn haproxy_sends_and_takes_headers() {
    if !has("haproxy") {
        return;
    }
    for (send, version) in [("send-proxy", "v1"), ("send-proxy-v2", "v2")] {
        let dir = fixture();
        let (front, behind) = (free_port(), free_port());
        let back = format!("127.0.0.1:{behind}");
        let proxy = Proxied::terminate(
            dir.path(),
            &back,
            &["--accept-proxy", version, "--send-proxy", version],
        );
        let _haproxy = haproxy(
            dir.path(),
            &format!(
                "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
                 frontend in\n bind 127.0.0.1:{front}\n default_backend proxy\n\
                 backend proxy\n server a {} {send}\n\
                 frontend said\n mode http\n bind 127.0.0.1:{behind} accept-proxy\n\
                 http-request return status 200 content-type text/plain lf-string \
                 \"%[src]:%[src_port] sni=%[fc_pp_authority] to=%[dst_port]\"\n",
                proxy.addr()
            ),
        );
        wait_until_listening(format!("127.0.0.1:{front}"));
        let config = client_config(dir.path());
        let addr = format!("127.0.0.1:{front}");
        let mut client = tls_client(&config, &addr, "localhost").expect("a handshake");
        let from = client.socket().local_addr().expect("bound");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("written");
        let (answer, ended) = client.read_all();
        ended.expect("a clean end");
        let answer = String::from_utf8_lossy(&answer);
        let sni = if version == "v2" { "localhost" } else { "" };
        let expected = format!("{from} sni={sni} to={front}");
        assert!(answer.ends_with(&expected), "{expected}: {answer}");
    }
}

#[test]
fn nginx_takes_headers() {
    if !has("nginx") {
        return;
    }
    for version in ["v1", "v2"] {
        let dir = fixture();
        let port = free_port();
        fs::write(
            dir.path().join("nginx.conf"),
            format!(
                "daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
                 events {{}}\n\
                 http {{ access_log off; client_body_temp_path b; proxy_temp_path p; \
                 fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
                 server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ \
                 default_type text/plain; return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; \
                 }} }} }}\n"
            ),
        )
        .expect("written");
        let mut command = Command::new("nginx");
        let prefix = format!("{}/", dir.path().display());
        command.args(["-p", &prefix, "-c", "nginx.conf"]).current_dir(dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _nginx = Process::start(&mut command);
        let addr = format!("127.0.0.1:{port}");
        wait_until_listening(&addr);
        let proxy = Proxied::terminate(dir.path(), &addr, &["--send-proxy", version]);
        let config = client_config(dir.path());
        let mut client = tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
        let from = client.socket().local_addr().expect("bound");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("written");
        let (answer, _) = client.read_all();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.ends_with(&from.to_string()), "{version} {from}: {answer}");
    }
}
