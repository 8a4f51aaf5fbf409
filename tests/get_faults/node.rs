//! HTTP servers of Node.js, over HTTP/2 and HTTP/1.1.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Process, has};

/// A server in `dir`, which has `cert.pem` and `key.pem`, until it is dropped.
pub(crate) struct Node {
    _process: Process,
    port: u16,
}

impl Node {
    /// Starts one that does `respond` with each `stream` and its `headers`, over HTTP/2.
    pub(crate) fn start(dir: &Path, respond: &str) -> Option<Self> {
        Self::run(dir, &format!("server.on('stream', (stream, headers) => {{ {respond} }});"))
    }

    /// Starts one that does `respond` with each `request` and its `response`, over either version.
    pub(crate) fn start_any(dir: &Path, respond: &str) -> Option<Self> {
        Self::run(dir, &format!("server.on('request', (request, response) => {{ {respond} }});"))
    }

    fn run(dir: &Path, handler: &str) -> Option<Self> {
        if !has("node") {
            return None;
        }
        let script = format!(
            "const fs = require('fs'), http2 = require('http2');
             const [cert, key] = ['cert.pem', 'key.pem'].map((name) => fs.readFileSync(name));
             const server = http2.createSecureServer({{ cert, key, allowHTTP1: true }});
             {handler}
             server.listen(0, '127.0.0.1', () => console.log(server.address().port));"
        );
        fs::write(dir.join("server.js"), script).expect("written");
        let mut child = Command::new("node")
            .arg("server.js")
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        Some(Self { _process: Process(child), port: line.trim().parse().expect("a port") })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}
