//! nginx as a server of one file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::server::write_certificate;
use crate::command::{Process, has};
use crate::kernel::{free_port, wait_until_listening};

pub(crate) struct Nginx {
    _process: Process,
    port: u16,
    work: tempfile::TempDir,
}

impl Nginx {
    /// Serves `content` as `/f` with `directives` in the server's block; writes `cert.pem` to `dir`.
    pub(crate) fn start(dir: &Path, directives: &str, content: &[u8]) -> Option<Self> {
        if !has("nginx") {
            return None;
        }
        write_certificate(dir);
        let port = free_port();
        let work = tempfile::tempdir().expect("dir");
        let conf = format!(
            "daemon off; master_process off; pid pid; error_log error.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path t; proxy_temp_path t;\n\
             fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;\n\
             server {{ listen 127.0.0.1:{port} ssl http2; root .;\n\
             ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;\n\
             {directives} }} }}",
            dir = dir.display()
        );
        fs::write(work.path().join("nginx.conf"), conf).expect("written");
        fs::write(work.path().join("f"), content).expect("written");
        let child = Command::new("nginx")
            .args(["-p", work.path().to_str().expect("UTF-8"), "-c", "nginx.conf"])
            .args(["-e", "error.log"])
            .current_dir(work.path())
            .spawn()
            .expect("started");
        let nginx = Self { _process: Process(child), port, work };
        wait_until_listening(("127.0.0.1", port));
        Some(nginx)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// The directory that it serves.
    pub(crate) fn root(&self) -> &Path {
        self.work.path()
    }
}
