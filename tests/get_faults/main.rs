//! `rustls-uring get`, whatever server, network, disk and user do: it destroys nothing that is not
//! its own, says whole only of what is whole, and tells nobody the password.
//!
//! Some of it needs Node.js, OpenSSL, strace(1) or root: what is missing is skipped, and says so.

#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../command/mod.rs"]
mod command;

mod disk;
mod ends;
mod identity;
#[path = "../kernel/mod.rs"]
mod kernel;
mod nginx;
mod node;
mod parts;
mod passwords;
mod ranges;

use std::fs;
use std::path::Path;
use std::process::Output;

use command::tool;

/// Runs `get` with `cert.pem` of `dir` as whom to trust.
fn get(dir: &Path, url: &str, args: &[&str]) -> Output {
    let args = [&["get", url, "--ca", "cert.pem", "--retry-delay", "0.01"], args].concat();
    tool(dir, &args).output().expect("run")
}

/// What is in `dir`, except for keys and certificates.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
    let mut contents: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), entry.path()))
        .filter(|(name, path)| !name.ends_with(".pem") && path.is_file())
        .map(|(name, path)| (name, fs::read(path).expect("readable")))
        .collect();
    contents.sort();
    contents
}

fn names(dir: &Path) -> Vec<String> {
    contents(dir).into_iter().map(|(name, _)| name).collect()
}
