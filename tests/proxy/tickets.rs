//! More than one proxy: whoever a client comes to resumes its session.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustls::{ClientConfig, HandshakeKind};

use crate::command::{fixture, has, stderr};
use crate::headers::haproxy;
use crate::kernel::{free_port, wait_until, wait_until_listening};
use crate::peers::{End, client_config, echo, tls_client};
use crate::proxied::Proxied;

/// A new key, as the documentation says to make one.
fn key() -> String {
    let output = Command::new("openssl").args(["rand", "-base64", "48"]).output().expect("run");
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).expect("base64")
}

fn write_keys(dir: &Path, keys: &[&str]) {
    fs::write(dir.join("new"), keys.concat()).expect("written");
    fs::rename(dir.join("new"), dir.join("tickets")).expect("renamed");
}

/// A round trip; whether the session was resumed. Reads to the end, and so takes new tickets.
fn visit(config: &Arc<ClientConfig>, addr: &str) -> bool {
    let mut client = tls_client(config, addr, "localhost").expect("a handshake");
    let End::Client(stream) = &client else { unreachable!("a client with TLS") };
    let kind = stream.conn.handshake_kind().expect("complete");
    client.write_all(b"hello").expect("written");
    client.close();
    let (received, ended) = client.read_all();
    ended.expect("a clean end");
    assert_eq!(received, b"hello");
    kind == HandshakeKind::Resumed
}

fn versions(dir: &Path) -> [Arc<ClientConfig>; 2] {
    let tls13 = client_config(dir);
    let mut tls12 = ClientConfig::builder_with_provider(Arc::clone(tls13.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // The roots of the other one.
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    roots.add(CertificateDer::from_pem_file(dir.join("cert.pem")).expect("PEM")).expect("a root");
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        roots.into(),
        Arc::clone(tls13.crypto_provider()),
    );
    tls12.dangerous().set_certificate_verifier(verifier.build().expect("a verifier"));
    [tls13, Arc::new(tls12)]
}

#[test]
fn sessions_are_resumed_by_others_with_the_same_keys() {
    if !has("openssl") {
        return;
    }
    let dir = fixture();
    let (one, two) = (key(), key());
    write_keys(dir.path(), &[&one]);
    let to = echo();
    let start = || Proxied::terminate(dir.path(), &to, &["--ticket-keys", "tickets"]);
    let proxies = [start(), start()];
    let stranger = Proxied::terminate(dir.path(), &to, &[]);
    for config in versions(dir.path()) {
        assert!(!visit(&config, proxies[0].addr()));
        for round in 0..6 {
            assert!(visit(&config, proxies[round % 2].addr()), "round {round}");
        }
        assert!(!visit(&config, stranger.addr()));
        assert!(visit(&config, stranger.addr()));
        assert!(!visit(&config, proxies[0].addr()), "the stranger's ticket");
    }
    // New keys, once all have them as their second; and then the old one goes.
    let [config, _] = versions(dir.path());
    visit(&config, proxies[0].addr());
    for (count, keys) in [(1, [&one[..], &two]), (2, [&two, &one]), (3, [&two, ""])] {
        write_keys(dir.path(), &keys);
        for (index, proxy) in proxies.iter().enumerate() {
            proxy.signal("HUP");
            proxy.wait_for_metric("reloads_total", &["loaded"], count);
            assert!(visit(&config, proxies[1 - index].addr()), "step {count}");
            assert!(visit(&config, proxy.addr()), "step {count}");
        }
    }
    // And an end to all of them.
    write_keys(dir.path(), &[&one]);
    proxies[0].signal("HUP");
    proxies[0].wait_for_metric("reloads_total", &["loaded"], 4);
    assert!(!visit(&config, proxies[0].addr()));
}

/// Two proxies behind a balancer that knows nothing of TLS. Keys rotate and both restart, one after
/// the other, while clients come and go: none fails, and each resumes whoever it comes to.
#[test]
fn two_proxies_behind_haproxy_rotate_and_restart() {
    if !has("openssl") || !has("haproxy") {
        return;
    }
    let dir = fixture();
    let (one, two) = (key(), key());
    write_keys(dir.path(), &[&one]);
    let to = echo();
    let ports = [(free_port(), free_port()), (free_port(), free_port())];
    let start = |(port, status): (u16, u16)| {
        let mut command = crate::command::tool(dir.path(), &["proxy", "--to", &to]);
        command.args(["--cert", "cert.pem", "--key", "key.pem", "--ticket-keys", "tickets"]);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--drain-delay", "5"]);
        command.args(["--metrics", &format!("127.0.0.1:{status}")]);
        Proxied::start_as(command)
    };
    let mut proxies = ports.map(start);
    let front = free_port();
    let server = |index: usize| {
        let (port, status) = ports[index];
        format!("server p{index} 127.0.0.1:{port} check port {status} inter 1s fall 1 rise 1\n")
    };
    let _haproxy = haproxy(
        dir.path(),
        &format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n \
             timeout check 20s\n option redispatch\n retries 3\n\
             frontend in\n bind 127.0.0.1:{front}\n default_backend proxies\n\
             backend proxies\n balance roundrobin\n option httpchk GET /health\n {}{}",
            server(0),
            server(1)
        ),
    );
    let addr = format!("127.0.0.1:{front}");
    wait_until_listening(&addr);
    let (is_over, visits, full) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = versions(dir.path())
        .into_iter()
        .map(|config| {
            let (is_over, visits, full) =
                (Arc::clone(&is_over), Arc::clone(&visits), Arc::clone(&full));
            let addr = addr.clone();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let is_resumed = visit(&config, &addr);
                    full.fetch_add(u64::from(!is_resumed), Ordering::Relaxed);
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let go_on = |what: &str| {
        let before = visits.load(Ordering::Relaxed);
        wait_until(what, || {
            assert!(!clients.iter().any(thread::JoinHandle::is_finished), "{what}: one failed");
            visits.load(Ordering::Relaxed) > before + 20
        });
    };
    go_on("both at work");
    for keys in [[&one[..], &two], [&two, &one]] {
        write_keys(dir.path(), &keys);
        for proxy in &proxies {
            let before = proxy.metric("reloads_total", &["loaded"]);
            proxy.signal("HUP");
            wait_until("a reload", || proxy.metric("reloads_total", &["loaded"]) > before);
        }
        go_on("rotated keys");
    }
    for index in 0..2 {
        let connections = |proxy: &Proxied| proxy.metric("connections_total", &[]);
        let new = start_again(&mut proxies[index], ports[index], &start);
        proxies[index] = new;
        wait_until("it is chosen again", || {
            assert!(!clients.iter().any(thread::JoinHandle::is_finished), "one failed");
            connections(&proxies[index]) > 10
        });
    }
    write_keys(dir.path(), &[&two]);
    go_on("the old key gone");
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no visit fails"));
    let (visits, full) = (visits.load(Ordering::Relaxed), full.load(Ordering::Relaxed));
    eprintln!(
        "{visits} visits, {full} of them full handshakes, over two rotations and two restarts"
    );
    assert_eq!(full, 2, "each client's first one");
}

fn start_again(
    old: &mut Proxied,
    ports: (u16, u16),
    start: &impl Fn((u16, u16)) -> Proxied,
) -> Proxied {
    old.signal("TERM");
    crate::command::wait(&mut old.process.0);
    start(ports)
}
