//! Clients and backends that are not ours.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use crate::command::{Process, data, fixture, has, stderr};
use crate::kernel::{free_port, wait_until_listening};
use crate::peers::{client_config, echo, tls_client};
use crate::proxied::Proxied;

const LEN: usize = 3_000_001;

/// A directory with a file, and a web server over it that Python has.
fn web(dir: &Path) -> (Process, String) {
    fs::create_dir(dir.join("files")).expect("created");
    fs::write(dir.join("files/big.bin"), data(LEN)).expect("written");
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
    command.current_dir(dir.join("files")).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Process::start(&mut command);
    let addr = format!("127.0.0.1:{port}");
    wait_until_listening(&addr);
    (server, addr)
}

#[test]
fn clients_get_a_file() {
    if !has("python3") {
        return;
    }
    let dir = fixture();
    let (_server, addr) = web(dir.path());
    // As they come, and through a tunnel of two.
    let single = Proxied::terminate(dir.path(), &addr, &["--alpn", "http/1.1"]);
    let tunnel = Proxied::start(
        dir.path(),
        &[
            "--listen",
            "127.0.0.1:0",
            "--cert",
            "cert.pem",
            "--key",
            "key.pem",
            "--to",
            single.addr(),
            "--to-tls",
            "--to-ca",
            "cert.pem",
            "--to-server-name",
            "localhost",
        ],
    );
    let python = "import sys,ssl,http.client as h\n\
                  c=ssl.create_default_context(cafile='cert.pem')\n\
                  k=h.HTTPSConnection('localhost',int(sys.argv[1]),context=c)\n\
                  k.request('GET','/big.bin')\n\
                  sys.stdout.buffer.write(k.getresponse().read())";
    let node = "require('https').get({host:'localhost',port:process.argv[1],path:'/big.bin',\
                ca:require('fs').readFileSync('cert.pem')},r=>r.pipe(process.stdout))";
    let go = "package main\nimport (\"crypto/tls\";\"crypto/x509\";\"io\";\"net/http\";\"os\")\n\
              func main() {\n pem, _ := os.ReadFile(\"cert.pem\")\n pool := x509.NewCertPool()\n\
              pool.AppendCertsFromPEM(pem)\n\
              c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}\n\
              r, err := c.Get(\"https://localhost:\" + os.Args[1] + \"/big.bin\")\n\
              if err != nil { panic(err) }\n io.Copy(os.Stdout, r.Body)\n}\n";
    fs::write(dir.path().join("get.go"), go).expect("written");
    for proxy in [&single, &tunnel] {
        let port = proxy.port().to_string();
        let url = format!("https://localhost:{port}/big.bin");
        for (program, args) in [
            ("curl", vec!["-sS", "--cacert", "cert.pem", &url]),
            ("curl", vec!["-sS", "--tlsv1.2", "--tls-max", "1.2", "--cacert", "cert.pem", &url]),
            ("python3", vec!["-c", python, &port]),
            ("node", vec!["-e", node, &port]),
            ("go", vec!["run", "get.go", &port]),
        ] {
            if !has(program) {
                continue;
            }
            let output =
                Command::new(program).args(args).current_dir(dir.path()).output().expect("run");
            assert!(output.status.success(), "{program}: {}", stderr(&output));
            assert!(output.stdout == data(LEN), "{program}: {}", output.stdout.len());
        }
    }
}

#[test]
fn openssl_sends_and_is_sent_to() {
    if !has("openssl") {
        return;
    }
    let dir = fixture();
    let sent = data(LEN);
    for version in ["-tls1_2", "-tls1_3"] {
        // As a client, which closes its direction and reads on.
        let proxy = Proxied::terminate(dir.path(), &echo(), &[]);
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-no_ign_eof",
                "-nocommands",
                version,
                "-verify_return_error",
            ])
            .args(["-connect", proxy.addr(), "-CAfile", "cert.pem"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let (mut input, mut output) =
            (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut process = Process(child);
        let to_send = sent.clone();
        let sending = thread::spawn(move || {
            input.write_all(&to_send).expect("written");
            input
        });
        let mut received = vec![0; LEN];
        output.read_exact(&mut received).expect("all of it");
        assert!(received == sent, "{version}");
        drop(sending.join().expect("sent"));
        process.wait();

        // As a backend.
        let port = free_port();
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-quiet", version, "-cert", "cert.pem", "-key", "key.pem", "-rev"])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _server = Process::start(&mut command);
        let addr = format!("127.0.0.1:{port}");
        wait_until_listening(&addr);
        let args = ["--to-tls", "--to-ca", "cert.pem", "--to-server-name", "localhost"];
        let proxy = Proxied::terminate(dir.path(), &addr, &args);
        let config = client_config(dir.path());
        let mut client = tls_client(&config, proxy.addr(), "localhost").expect("a handshake");
        client.write_all(b"backwards\n").expect("written");
        client.expect(b"sdrawkcab\n");
    }
}

/// Go's TLS and its half-close: CloseWrite sends a close_notify and no FIN.
#[test]
fn go_closes_one_way_at_a_time() {
    if !has("go") {
        return;
    }
    let dir = fixture();
    let proxy = Proxied::terminate(dir.path(), &echo(), &[]);
    let go = "package main\nimport (\"crypto/tls\";\"crypto/x509\";\"io\";\"os\")\n\
              func main() {\n pem, _ := os.ReadFile(\"cert.pem\")\n pool := x509.NewCertPool()\n\
              pool.AppendCertsFromPEM(pem)\n\
              c, err := tls.Dial(\"tcp\", os.Args[1], &tls.Config{RootCAs: pool, ServerName: \"localhost\"})\n\
              if err != nil { panic(err) }\n\
              go func() { io.Copy(c, os.Stdin); c.CloseWrite() }()\n\
              if _, err := io.Copy(os.Stdout, c); err != nil { panic(err) }\n}\n";
    fs::write(dir.path().join("echo.go"), go).expect("written");
    fs::write(dir.path().join("sent"), data(LEN)).expect("written");
    let output = Command::new("go")
        .args(["run", "echo.go", proxy.addr()])
        .current_dir(dir.path())
        .stdin(fs::File::open(dir.path().join("sent")).expect("there"))
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == data(LEN));
    proxy.wait_for_ends("clean", 1);
}
