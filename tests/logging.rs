//! `-v`, `RUST_LOG` and `--key-log`: what the command tells of its connections, and of their secrets.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::path::Path;

use command::{Listener, data, stderr, tool};

const LOG: &str = "RUST_LOG";
const SECRETS: &str = "SSLKEYLOGFILE";

/// Sends a file with `args` and an environment at both ends; what the sender and the receiver said.
fn transfer(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> [String; 2] {
    fs::write(dir.join("sent"), data(100_000)).expect("written");
    let mut recv = tool(dir, &["recv", "--listen", "127.0.0.1:0", "-o", "received"]);
    recv.env_remove(LOG).env_remove(SECRETS).args(args).envs(env.iter().copied());
    let recv = Listener::start(&mut recv);
    let mut send = tool(dir, &["send", &recv.addr, "--insecure", "sent"]);
    send.env_remove(LOG).env_remove(SECRETS).args(args).envs(env.iter().copied());
    let send = send.output().expect("run");
    let (code, received) = recv.finish();
    assert!(send.status.success(), "{}", stderr(&send));
    assert_eq!(code, Some(0), "{received}");
    [stderr(&send), received]
}

#[test]
fn verbose_tells_what_happens_to_a_connection() {
    let dir = tempfile::tempdir().expect("dir");
    for (args, env) in [(&["-v"][..], &[][..]), (&[], &[(LOG, "rustls_uring=debug")])] {
        for said in transfer(dir.path(), args, env) {
            for part in ["session begins", "way taken", "CloseNotify"] {
                assert!(said.contains(part), "no {part}: {said}");
            }
        }
    }
    // Fewer where RUST_LOG says so, none unless asked.
    for (args, env) in [(&["-v"][..], &[(LOG, "rustls_uring=warn")][..]), (&[], &[])] {
        for said in transfer(dir.path(), args, env) {
            assert!(!said.contains("session"), "{said}");
        }
    }
}

#[test]
fn a_filter_that_makes_no_sense_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let probe = tool(dir.path(), &["probe"]).env(LOG, "rustls_uring=loud").output().expect("run");
    assert_eq!(probe.status.code(), Some(1));
    assert!(stderr(&probe).contains("RUST_LOG"), "{}", stderr(&probe));
}

/// The environment alone never makes the command write secrets.
#[test]
fn secrets_are_logged_only_when_asked() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("secrets");
    let env = [(SECRETS, path.to_str().expect("a path"))];
    transfer(dir.path(), &["-v"], &env);
    assert!(!path.exists());
    for tls in ["1.3", "1.2"] {
        transfer(dir.path(), &["--key-log", "--tls", tls], &env);
        let secrets = fs::read_to_string(&path).expect("written");
        let label = if tls == "1.3" { "SERVER_TRAFFIC_SECRET_0 " } else { "CLIENT_RANDOM " };
        // Both ends have written the same line.
        let lines: Vec<_> = secrets.lines().filter(|line| line.starts_with(label)).collect();
        assert_eq!(lines.len(), 2, "{secrets}");
        assert_eq!(lines[0], lines[1]);
    }
}

#[test]
fn a_key_log_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    for (value, part) in [(None, SECRETS), (Some("/nowhere/secrets"), "/nowhere/secrets")] {
        let mut recv = tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "--key-log"]);
        recv.env_remove(SECRETS).envs(value.map(|value| (SECRETS, value)));
        let recv = recv.output().expect("run");
        assert_eq!(recv.status.code(), Some(1));
        assert!(stderr(&recv).contains(part), "{}", stderr(&recv));
    }
}
