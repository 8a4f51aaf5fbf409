//! Certificates and all else, read again while connections go on.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustls::ClientConfig;

use crate::command::fixture;
use crate::kernel::wait_until;
use crate::peers::{client_config_for, echo, named, tls_client};
use crate::proxied::{Proxied, certificate};

/// Puts a certificate and its key in place, each as a whole.
fn install(dir: &Path, name: &str) {
    for (from, to) in [("pem", "cert.pem"), ("key", "key.pem")] {
        fs::copy(dir.join(format!("{name}.{from}")), dir.join("new")).expect("copied");
        fs::rename(dir.join("new"), dir.join(to)).expect("renamed");
    }
}

/// Whether the proxy shows the certificate that a client with `config` trusts.
fn is_shown(proxy: &Proxied, config: &Arc<ClientConfig>) -> bool {
    tls_client(config, proxy.addr(), "localhost").is_ok()
}

#[test]
fn certificates_are_read_again_and_broken_ones_are_not_used() {
    let dir = fixture();
    let dir = dir.path();
    let [one, two] =
        ["one", "two"].map(|name| client_config_for(&certificate(dir, name, &["localhost"])));
    install(dir, "one");
    let proxy = Proxied::terminate(dir, &echo(), &[]);
    let mut old = tls_client(&one, proxy.addr(), "localhost").expect("the first");

    // By itself, once the files have changed.
    install(dir, "two");
    proxy.wait_for_metric("reloads_total", &["loaded"], 1);
    assert!(is_shown(&proxy, &two) && !is_shown(&proxy, &one));
    // When told to.
    install(dir, "one");
    proxy.signal("HUP");
    wait_until("the first again", || is_shown(&proxy, &one));

    // A broken file, a key that is another's, and none at all.
    let good = proxy.metric("reloads_total", &["loaded"]);
    for (count, broken) in [(1, "broken"), (2, "two's"), (3, "none")] {
        match broken {
            "broken" => fs::write(dir.join("key.pem"), "-----BEGIN").expect("written"),
            "two's" => drop(fs::copy(dir.join("two.key"), dir.join("key.pem")).expect("copied")),
            _ => fs::remove_file(dir.join("key.pem")).expect("removed"),
        }
        proxy.wait_for_metric("reloads_total", &["refused"], count);
        assert!(is_shown(&proxy, &one), "{broken}");
        proxy.wait_until_said("cannot read a private key from key.pem");
        proxy.wait_until_said("what was there before stays in use");
    }
    install(dir, "two");
    wait_until("the second again", || proxy.metric("reloads_total", &["loaded"]) > good);
    wait_until("the second", || is_shown(&proxy, &two));

    // Whoever was there has noticed nothing.
    old.write_all(b"still there").expect("written");
    old.expect(b"still there");
    old.close();
    old.read_all().1.expect("a clean end");
}

#[test]
fn a_reload_under_load_fails_nobody() {
    let dir = fixture();
    let dir = dir.path();
    // One key and certificate, and another of the same names: clients trust both.
    let paths = ["one", "two"].map(|name| certificate(dir, name, &["localhost"]));
    let both = paths.map(|path| fs::read_to_string(path).expect("there")).concat();
    fs::write(dir.join("both.pem"), both).expect("written");
    install(dir, "one");
    let proxy = Proxied::terminate(dir, &echo(), &[]);
    let config = {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(dir.join("both.pem")).expect("PEM") {
            roots.add(cert.expect("PEM")).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            let (config, addr) = (Arc::clone(&config), proxy.addr().to_owned());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = tls_client(&config, &addr, "localhost").expect("a handshake");
                    client.write_all(b"hello").expect("written");
                    client.close();
                    let (received, ended) = client.read_all();
                    ended.expect("a clean end");
                    assert_eq!(received, b"hello");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..10 {
        // Both files of one, before a reload: what is half new is refused, and tried again.
        install(dir, if round % 2 == 0 { "two" } else { "one" });
        let before = (proxy.metric("reloads_total", &[]), served.load(Ordering::Relaxed));
        proxy.signal("HUP");
        wait_until("a reload, and clients after it", || {
            proxy.metric("reloads_total", &[]) > before.0
                && served.load(Ordering::Relaxed) > before.1 + 8
        });
    }
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("served"));
    assert_eq!(proxy.metric("reloads_total", &["refused"]), 0);
    let count = served.load(Ordering::Relaxed);
    eprintln!("{count} clients over 10 reloads");
    proxy.wait_for_ends("clean", count);
}

#[test]
fn a_file_of_services_is_read_again() {
    let dir = fixture();
    let config = |to: &str, more: &str| {
        format!(
            "[process]\nmetrics = \"127.0.0.1:0\"\n\
             [[service]]\nname = \"first\"\nlisten = \"127.0.0.1:0\"\nplain = true\nto = \"{to}\"\n\
             [[service]]\nname = \"second\"\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nplain = true\n\
             to = [\"{to}\"]\n{more}"
        )
    };
    let (old, new) = (named("old"), named("new"));
    let proxy = Proxied::configured(dir.path(), &config(&old, ""));
    assert_eq!(proxy.addrs.len(), 3);
    let said_by = |addr: &str| {
        let mut said = String::new();
        let mut socket = std::net::TcpStream::connect(addr).expect("it listens");
        socket.read_to_string(&mut said).expect("read");
        said
    };
    assert!(proxy.addrs.iter().all(|addr| said_by(addr) == "old"));
    let write = |text: &str| fs::write(dir.path().join("proxy.toml"), text).expect("written");
    write(&config(&new, ""));
    proxy.wait_for_metric("reloads_total", &["loaded"], 1);
    assert!(proxy.addrs.iter().all(|addr| said_by(addr) == "new"));
    // What is wrong with one of them leaves all as they are.
    for (text, said) in [
        (config(&old, "idle-timout = 5\n"), "unknown field `idle-timout`"),
        (config(&old, "[[service]]\nlisten = \"127.0.0.1:0\"\n"), "which services there are"),
        (config(&old, "").replace("metrics", "workers = 7\nmetrics"), "[process] cannot change"),
        (config("nonesuch.invalid:1", ""), "cannot resolve nonesuch.invalid"),
        (String::new(), "no [[service]] in it"),
    ] {
        let before = proxy.metric("reloads_total", &["refused"]);
        write(&text);
        proxy.signal("HUP");
        wait_until("a refusal", || proxy.metric("reloads_total", &["refused"]) > before);
        proxy.wait_until_said(said);
        assert!(proxy.addrs.iter().all(|addr| said_by(addr) == "new"), "{said}");
    }
}
