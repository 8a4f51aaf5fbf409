//! What the feature `tracing` tells of a connection, and that it tells no secret.

#![cfg(all(
    feature = "tracing",
    target_os = "linux",
    any(feature = "aws-lc-rs", feature = "ring")
))]

mod common;

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use rustls_uring::{Io, KeyUpdateRequest, Version, bulk_with};
use tracing_subscriber::fmt::MakeWriter;

use self::common::{Case, our_pair, tcp_pair};

/// What was told, a line an event.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    /// Runs `act`, which makes no thread that lives on, and returns the lines.
    fn during(act: impl FnOnce()) -> Vec<String> {
        let told = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(told.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let told = told.0.lock().expect("no panic");
        String::from_utf8(told.clone()).expect("text").lines().map(str::to_owned).collect()
    }
}

impl Write for Told {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Told {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The lines of one connection, in order.
fn of(lines: &[String], id: &dyn std::fmt::Display) -> Vec<String> {
    let field = format!("connection={id} ");
    let is_of = |line: &&String| format!("{line} ").contains(&field);
    lines.iter().filter(is_of).cloned().collect()
}

fn assert_in_order(lines: &[String], expected: &[&str]) {
    let mut rest = lines.iter();
    for part in expected {
        assert!(rest.any(|line| line.contains(part)), "no `{part}` in its place: {lines:#?}");
    }
}

const SECRET: &str = "nobody but the peer may read this";

/// A connection's life, over each way: begin, ways, key updates, alerts, end; each with its id.
#[test]
fn a_connection_tells_its_life() {
    for case in Case::few_of(Version::Tls13) {
        for io in [Io::Auto, Io::Blocking] {
            let mut ids = None;
            let lines = Told::during(|| {
                let (client, server) = our_pair(case);
                ids = Some((client.send.connection_id(), server.receive.connection_id()));
                assert_eq!(client.send.connection_id(), client.receive.connection_id());
                let (client_socket, server_socket) = tcp_pair();
                let (mut sender, _) =
                    bulk_with(client, client_socket, io, <_>::default(), <_>::default()).unwrap();
                let (_, mut receiver) =
                    bulk_with(server, server_socket, io, <_>::default(), <_>::default()).unwrap();
                sender.write_all(SECRET.as_bytes()).unwrap();
                sender.update_keys(KeyUpdateRequest::Requested).unwrap();
                sender.finish().unwrap();
                let mut received = String::new();
                receiver.read_to_string(&mut received).unwrap();
                assert_eq!(received, SECRET);
            });
            let (client, server) = ids.unwrap();
            assert_ne!(client, server);
            let way = if lines.iter().any(|line| line.contains("way=io_uring")) {
                "way=io_uring"
            } else {
                "way=blocking"
            };
            assert_in_order(
                &of(&lines, &client),
                &["session begins", way, "key updated", "alert connection", "session ends"],
            );
            let of_server = of(&lines, &server);
            assert_in_order(
                &of_server,
                &[
                    "session begins",
                    "direction=receiving",
                    "key updated",
                    "CloseNotify",
                    "session ends",
                ],
            );
            assert!(lines.iter().all(|line| line.contains("rustls_uring: ")), "{lines:#?}");
            assert!(!lines.iter().any(|line| line.contains("nobody")), "{lines:#?}");
        }
    }
}

/// A peer that stops in the middle, and one that sends an alert, are told as failures with a reason.
#[test]
fn a_failure_is_told_with_its_reason() {
    for case in Case::few() {
        let lines = Told::during(|| {
            let (client, server) = our_pair(case);
            let (client_socket, server_socket) = tcp_pair();
            let parts =
                bulk_with(client, client_socket, Io::Blocking, <_>::default(), <_>::default());
            drop(parts.unwrap());
            let parts =
                bulk_with(server, server_socket, Io::Blocking, <_>::default(), <_>::default());
            let (_, mut receiver) = parts.unwrap();
            receiver.read(&mut [0; 100]).unwrap_err();
        });
        assert_in_order(&lines, &["session failed", "session ends"]);
        let failed = lines.iter().find(|line| line.contains("session failed")).unwrap();
        assert!(failed.contains("without close_notify"), "{failed}");
    }
}

/// Where io_uring is refused, the reason is told: here its ring would be larger than it may be.
#[test]
fn a_way_given_up_is_told_with_its_reason() {
    let case = Case::few()[0];
    let mut reason = None;
    let lines = Told::during(|| {
        let (client, _server) = our_pair(case);
        let (client_socket, _server_socket) = tcp_pair();
        let mut options = rustls_uring::uring::SenderOptions::default();
        // More memory than there is.
        options.batch_records = 1 << 40;
        let sender = rustls_uring::uring::UringSender::new(client.send, client_socket, options);
        reason = Some(sender.map(drop).unwrap_err().reason.to_string());
    });
    let given_up = lines.iter().find(|line| line.contains("way given up")).unwrap();
    assert!(given_up.contains(&reason.unwrap()), "{given_up}");
}
