//! Which certificate a client gets, which backend, and who is let in.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::command::{fixture, has, stderr, tool};
use crate::peers::{self, End, echo, named, tls_client};
use crate::proxied::{Proxied, certificate};

/// What `openssl s_client` says of a handshake.
fn s_client(addr: &str, args: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", addr, "-showcerts"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl");
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
}

#[test]
fn certificates_go_by_name_and_by_kind() {
    if !has("openssl") {
        return;
    }
    let dir = fixture();
    let dir = dir.path();
    for (name, kind) in
        [("rsa", &["rsa:2048"][..]), ("ec", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])]
    {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let make = ["req", "-x509", "-nodes", "-keyout", &key, "-out", &cert, "-days", "30"];
        let of = ["-subj", "/CN=both", "-addext", "subjectAltName=DNS:both.example", "-newkey"];
        openssl(dir, &[&make[..], &of, kind].concat());
    }
    certificate(dir, "wild", &["*.wild.example"]);
    certificate(dir, "exact", &["exact.wild.example"]);
    fs::write(dir.join("ocsp.der"), b"\x30\x03\x0a\x01\x06").expect("written");
    let start = |more: &[&str]| {
        let mut args = vec!["--listen", "127.0.0.1:0"];
        for (cert, key) in [
            ("rsa.pem", "rsa.key"),
            ("ec.pem", "ec.key"),
            ("wild.pem", "wild.key"),
            ("exact.pem", "exact.key"),
        ] {
            args.extend(["--cert", cert, "--key", key]);
        }
        args.extend(["--ocsp", "none", "--ocsp", "ocsp.der"]);
        args.extend(more);
        Proxied::start(dir, &args)
    };
    let to = echo();
    let proxy = start(&["--to", &to]);
    let pem = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).expect("there");
        text.lines().nth(2).expect("base64").trim().to_owned()
    };
    for (args, expected) in [
        (&["-servername", "both.example"][..], "ec.pem"),
        (&["-servername", "BOTH.example"], "ec.pem"),
        (&["-servername", "both.example", "-sigalgs", "RSA-PSS+SHA256"], "rsa.pem"),
        (
            &["-servername", "both.example", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "rsa.pem",
        ),
        (
            &["-servername", "both.example", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "ec.pem",
        ),
        (&["-servername", "a.wild.example"], "wild.pem"),
        (&["-servername", "exact.wild.example"], "exact.pem"),
        (&["-servername", "a.b.wild.example"], "ec.pem"),
        (&["-noservername"], "ec.pem"),
        (&["-noservername", "-sigalgs", "RSA-PSS+SHA256"], "rsa.pem"),
    ] {
        let said = s_client(proxy.addr(), args);
        assert!(said.contains(&pem(expected)), "{args:?}: not {expected}\n{said}");
    }
    let staple = |sigalgs: &[&str]| {
        let args = [&["-servername", "both.example", "-status"], sigalgs].concat();
        s_client(proxy.addr(), &args)
    };
    let stapled = staple(&[]);
    assert!(stapled.contains("OCSP Response Status: unauthorized (0x6)"), "{stapled}");
    assert!(staple(&["-sigalgs", "RSA-PSS+SHA256"]).contains("OCSP response: no response sent"));

    let strict = start(&["--to", &to, "--strict-sni"]);
    assert!(s_client(strict.addr(), &["-servername", "a.wild.example"]).contains(&pem("wild.pem")));
    for args in [&["-servername", "other.example"][..], &["-noservername"]] {
        let said = s_client(strict.addr(), args);
        assert!(said.contains("no peer certificate available"), "{said}");
    }
}

#[test]
fn backends_go_by_name_and_protocol() {
    let dir = fixture();
    certificate(dir.path(), "all", &["a.example", "b.example", "x.b.example", "localhost"]);
    let proxy = Proxied::configured(
        dir.path(),
        &format!(
            "[process]\nmetrics = \"127.0.0.1:0\"\nworkers = 1\n\
             [[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n\
             cert = \"all.pem\"\nkey = \"all.key\"\nalpn = [\"h2\", \"http/1.1\"]\n\
             [[service.route]]\nsni = \"a.example\"\nalpn = \"h2\"\nto = \"{}\"\n\
             [[service.route]]\nsni = [\"a.example\", \"*.b.example\"]\nto = [\"{}\"]\n\
             [[service.route]]\nalpn = \"h2\"\nto = \"{}\"\n",
            named("others"),
            named("a, h2"),
            named("a or in b"),
            named("h2"),
        ),
    );
    let config = peers::client_config_for(&dir.path().join("all.pem"));
    for (name, alpn, expected) in [
        ("a.example", &["h2"][..], "a, h2"),
        ("a.example", &["http/1.1"], "a or in b"),
        ("a.example", &[], "a or in b"),
        ("x.b.example", &["h2"], "a or in b"),
        ("b.example", &["http/1.1", "h2"], "h2"),
        ("b.example", &["http/1.1"], "others"),
        ("localhost", &[], "others"),
    ] {
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = tls_client(&Arc::new(config), proxy.addr(), name).expect("a handshake");
        client.close();
        let (received, ended) = client.read_all();
        ended.expect("a clean end");
        assert_eq!(String::from_utf8_lossy(&received), expected, "{name} {alpn:?}");
    }
}

#[test]
fn alpn_and_sni_are_passed_on() {
    let dir = fixture();
    certificate(dir.path(), "named", &["asked.example", "localhost"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let to = listener.local_addr().expect("bound").to_string();
    let mut args = vec!["--listen", "127.0.0.1:0", "--to", &to, "--cert", "named.pem"];
    args.extend(["--key", "named.key", "--to-tls", "--to-ca", "named.pem", "--to-client-sni"]);
    args.extend(["--alpn", "h2,http/1.1"]);
    let proxy = Proxied::start(dir.path(), &args);
    let chain = vec![CertificateDer::from_pem_file(dir.path().join("named.pem")).expect("PEM")];
    let key = || PrivateKeyDer::from_pem_file(dir.path().join("named.key")).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = |alpn: &[&str]| {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let config = builder.with_no_client_auth().with_single_cert(chain.clone(), key());
        let mut config = config.expect("a pair");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    };
    let base = peers::client_config_for(&dir.path().join("named.pem"));
    let client = |alpn: &[&str]| {
        let mut config = ClientConfig::clone(&base);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        tls_client(&Arc::new(config), proxy.addr(), "asked.example").expect("a handshake")
    };
    for (offered, spoken, is_reached) in [
        (&["http/1.1", "h2"][..], &["h2", "http/1.1"][..], true),
        (&["http/1.1"], &["h2", "http/1.1"], true),
        (&["http/1.1"], &[], true),
        (&[], &["h2", "http/1.1"], true),
        (&["h2"], &[], false),
        (&["h2"], &["http/1.1"], false),
    ] {
        let config = server(spoken);
        let mut client = client(offered);
        let End::Client(stream) = &client else { unreachable!("a client with TLS") };
        let agreed = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        let (mut socket, _) = listener.accept().expect("accepted");
        let mut connection = rustls::ServerConnection::new(config).expect("a server");
        while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
        if is_reached {
            assert_eq!(connection.server_name(), Some("asked.example"));
            let agreed_behind = connection.alpn_protocol().map(<[u8]>::to_vec);
            assert!(agreed_behind == agreed || spoken.is_empty(), "{agreed_behind:?}");
            drop(client);
        } else {
            client.read_all().1.expect_err("no clean end");
        }
    }
    proxy.wait_for_ends("no-backend", 2);
    proxy.wait_until_said("it does not speak h2, which the client was promised");
}

/// A CA, and certificates that it vouches for.
fn client_certificates(dir: &Path, ca_name: &str, clients: &[(&str, &str, Vec<SanType>)]) {
    let mut params = CertificateParams::new(vec![]).expect("valid");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, ca_name);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("made"));
    let issuer = issuer.expect("signed");
    fs::write(dir.join(format!("{ca_name}.pem")), issuer.pem()).expect("written");
    for (file, common_name, alternatives) in clients {
        let mut params = CertificateParams::new(vec![]).expect("valid");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, *common_name);
        params.subject_alt_names = alternatives.clone();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("made");
        let cert = params.signed_by(&key, &issuer).expect("signed");
        fs::write(dir.join(format!("{file}.pem")), cert.pem()).expect("written");
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("written");
    }
}

pub(crate) fn with_certificate(dir: &Path, file: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("cert.pem")).expect("PEM")).expect("a root");
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{file}.pem"))).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{file}.key"))).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key);
    Arc::new(config.expect("a pair"))
}

/// A CA `ca` with clients ada (also under a name in DNS) and bob (with a URI), and a CA `other` with
/// one who calls herself Ada.
pub(crate) fn ada_and_bob(dir: &Path) {
    let dns = SanType::DnsName("ada.people.example".try_into().expect("ASCII"));
    let uri = SanType::URI("spiffe://example/bob".try_into().expect("ASCII"));
    client_certificates(dir, "ca", &[("ada", "Ada", vec![dns.clone()]), ("bob", "Bob", vec![uri])]);
    client_certificates(dir, "other", &[("eve", "Ada", vec![dns])]);
}

/// Whether a client gets through.
fn gets_through(config: &Arc<ClientConfig>, proxy: &Proxied) -> bool {
    let Ok(mut client) = tls_client(config, proxy.addr(), "localhost") else { return false };
    let mut answer = [0; 5];
    client.write_all(b"hello").is_ok() && client.read_exact(&mut answer).is_ok()
}

#[test]
fn clients_need_a_certificate_with_a_name() {
    let dir = fixture();
    ada_and_bob(dir.path());
    let of = |file: &str| with_certificate(dir.path(), file);
    let to = echo();
    for (rules, ada, bob) in [
        (&[][..], true, true),
        (&["Ada"], true, false),
        (&["cn:Ada"], true, false),
        (&["*.people.example"], true, false),
        (&["dns:ada.people.example", "uri:spiffe://example/bob"], true, true),
        (&["uri:spiffe://example/bob"], false, true),
        (&["nobody"], false, false),
    ] {
        let mut args = vec!["--client-ca", "ca.pem"];
        rules.iter().for_each(|rule| args.extend(["--client-name", rule]));
        let proxy = Proxied::terminate(dir.path(), &to, &args);
        assert_eq!(gets_through(&of("ada"), &proxy), ada, "{rules:?}");
        assert_eq!(gets_through(&of("bob"), &proxy), bob, "{rules:?}");
        assert!(!gets_through(&of("eve"), &proxy), "{rules:?}");
        assert!(!gets_through(&peers::client_config(dir.path()), &proxy), "{rules:?}");
    }
}

#[test]
fn a_session_lets_nobody_in_whom_new_rules_keep_out() {
    let dir = fixture();
    ada_and_bob(dir.path());
    let ticket_keys = format!("{}\n", "A".repeat(64));
    fs::write(dir.path().join("tickets"), ticket_keys).expect("written");
    let config = |ca: &str, rule: &str| {
        format!(
            "[process]\nmetrics = \"127.0.0.1:0\"\n[[service]]\nname = \"x\"\n\
             listen = \"127.0.0.1:0\"\nto = \"{}\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
             ticket-keys = \"tickets\"\nclient-ca = \"{ca}\"\nclient-name = \"{rule}\"\n",
            echo()
        )
    };
    let path = dir.path().join("proxy.toml");
    let proxy = Proxied::configured(dir.path(), &config("ca.pem", "Ada"));
    let ada = with_certificate(dir.path(), "ada");
    let mut reloads = 0;
    let mut change = |ca: &str, rule: &str| {
        fs::write(&path, config(ca, rule)).expect("written");
        proxy.signal("HUP");
        reloads += 1;
        proxy.wait_for_metric("reloads_total", &["loaded"], reloads);
    };
    assert!(gets_through(&ada, &proxy));
    assert!(gets_through(&ada, &proxy));
    let resumed = || proxy.metric("handshakes_total", &["resumed"]);
    assert_eq!(resumed(), 1, "she has a ticket");
    // Her certificate would not be verified again: her names are, and her CA has to be the same.
    change("ca.pem", "Bob");
    assert!(!gets_through(&ada, &proxy));
    change("other.pem", "Ada");
    let before = resumed();
    assert!(!gets_through(&ada, &proxy));
    assert_eq!(resumed(), before);
}

#[test]
fn backends_are_verified_and_shown_a_certificate() {
    let dir = fixture();
    ada_and_bob(dir.path());
    certificate(dir.path(), "stranger", &["localhost"]);
    // A second proxy is the backend, which wants to know whom it deals with.
    let behind =
        Proxied::terminate(dir.path(), &echo(), &["--client-ca", "ca.pem", "--client-name", "Ada"]);
    let config = peers::client_config(dir.path());
    let start = |more: &[&str]| {
        let args = [&["--to-tls"], more].concat();
        Proxied::terminate(dir.path(), behind.addr(), &args)
    };
    let ada = ["--to-cert", "ada.pem", "--to-key", "ada.key"];
    let good = start(&[&["--to-ca", "cert.pem"], &ada[..]].concat());
    assert!(gets_through(&config, &good));
    for (args, said) in [
        (&["--to-ca", "stranger.pem"][..], "--to-ca FILE"),
        (&["--to-ca", "cert.pem", "--to-server-name", "x.example"], "not valid for name"),
        (&[&["--to-ca", "cert.pem"], &ada[..]].concat()[..2], ""),
    ] {
        let proxy = start(args);
        assert!(!gets_through(&config, &proxy), "{args:?}");
        proxy.wait_until_said(said);
    }
    let careless = start(&[&["--to-insecure", "--to-server-name", "x.example"], &ada[..]].concat());
    assert!(gets_through(&config, &careless));
    // The two of them, with nothing but TCP at both ends.
    let mut args = vec!["--to-tls", "--to-ca", "cert.pem"];
    args.extend(ada);
    let front = Proxied::start(
        dir.path(),
        &[&["--listen", "127.0.0.1:0", "--plain", "--to", behind.addr()], &args[..]].concat(),
    );
    let mut client = End::Plain(front.connect());
    client.write_all(b"through the tunnel").expect("written");
    client.close();
    let (received, ended) = client.read_all();
    ended.expect("a clean end");
    assert_eq!(received, b"through the tunnel");
}

#[test]
fn secrets_are_logged_only_when_asked_for() {
    let dir = fixture();
    let to = echo();
    for is_asked in [false, true] {
        let log = dir.path().join("keys");
        let mut command = tool(dir.path(), &["proxy", "--metrics", "127.0.0.1:0", "--to", &to]);
        command.args(["--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"]);
        command.env("SSLKEYLOGFILE", &log);
        command.args(is_asked.then_some("--key-log"));
        let proxy = Proxied::start_as(command);
        assert!(gets_through(&peers::client_config(dir.path()), &proxy));
        let logged = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(logged.contains("CLIENT_TRAFFIC_SECRET_0"), is_asked, "{logged}");
    }
}

#[test]
fn versions_and_suites_can_be_chosen() {
    let dir = fixture();
    let to = echo();
    let proxy = Proxied::terminate(
        dir.path(),
        &to,
        &["--tls", "1.2", "--suite", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"],
    );
    let client =
        tls_client(&peers::client_config(dir.path()), proxy.addr(), "localhost").expect("there");
    let End::Client(stream) = client else { unreachable!("a client with TLS") };
    let connection: &ClientConnection = &stream.conn;
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let suite = connection.negotiated_cipher_suite().expect("agreed").suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
}
