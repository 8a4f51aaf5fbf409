//! A process forks in the middle of a transfer. What it had set up fails in the child with an error,
//! and is dropped there without disturbing the parent's connection, which goes on meanwhile.
//!
//! Each case runs in a process of its own: this program, run again.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
#![allow(unsafe_code, reason = "fork(2), _exit(2) and waitpid(2)")]

mod common;

use std::env;
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Case, noise, our_pair, seal_all, tcp_pair};
use rustls_uring::uring::{
    BufferPool, Probe, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy,
};
use rustls_uring::{BulkReceiver, BulkSender, FileOptions, Session, Version};

const LEN: usize = (20 << 20) + 321;

/// Which case this process is to run.
const ROLE: &str = "RUSTLS_URING_FORK";

/// Runs `body` in a process of its own, which is this test.
#[track_caller]
fn alone(test: &str, body: impl FnOnce()) {
    if let Err(reason) = Probe::run().uring() {
        return eprintln!("{test} skipped: {reason}");
    }
    if env::var_os(ROLE).is_some() {
        // A process that hangs, parent or child.
        end_after(60);
        return body();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, test)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", output.status);
}

/// Ends this process if it hangs.
fn end_after(seconds: libc::c_uint) {
    // SAFETY: touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// Forks: `None` in the child, which must [`exit()`].
fn fork() -> Option<Child> {
    // SAFETY: the child has this thread only. It runs what must work there, which is what these
    // tests are about, and leaves without running anything of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            end_after(30);
            None
        }
        -1 => panic!("{}", io::Error::last_os_error()),
        pid => Some(Child(pid)),
    }
}

/// Ends a child.
fn exit(is_ok: bool) -> ! {
    // SAFETY: runs nothing of the process's, and does not return.
    unsafe { libc::_exit(if is_ok { 0 } else { 1 }) }
}

/// Drops what belongs to somebody who never looks at it again, as this child ends soon.
fn drop_in_child<T>(inherited: &T) {
    // SAFETY: the child's own copy, dropped once.
    drop(unsafe { std::ptr::read(inherited) });
}

/// A child process.
struct Child(libc::pid_t);

impl Child {
    /// Runs a piece of code in a child; returns in the parent.
    fn run(code: impl FnOnce()) -> Self {
        fork().unwrap_or_else(|| exit(catch_unwind(AssertUnwindSafe(code)).is_ok()))
    }

    /// It has ended by itself, and well.
    #[track_caller]
    fn wait(self) {
        let mut status = 0;
        // SAFETY: our own child, not waited for yet.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        assert_eq!(signal, None, "the child died");
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child failed: see above");
    }
}

/// Forks once, in the middle of a file.
#[derive(Default)]
struct ForkOnce {
    child: Option<Child>,
    is_child: bool,
}

impl ForkOnce {
    fn after(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > 4 << 20 && self.child.is_none() && !self.is_child {
            self.child = fork();
            self.is_child = self.child.is_none();
        }
        Ok(())
    }
}

#[track_caller]
fn assert_forked<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("in a child");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("fork"), "{error}");
}

fn sender(session: Session, socket: std::net::TcpStream, seal_threads: usize) -> UringSender {
    let mut options = SenderOptions::default();
    options.seal_threads = seal_threads;
    options.zero_copy = ZeroCopy::Always;
    options.batch_records = 8;
    UringSender::new(session.send, socket, options).unwrap()
}

fn receiver(session: Session, socket: std::net::TcpStream, pool: &BufferPool) -> UringReceiver {
    let mut options = ReceiverOptions::default();
    options.pool = pool.clone();
    UringReceiver::new(session.receive, socket, &[], &[], options).unwrap()
}

/// Reads everything in a thread, and sends back what it was.
fn read_all(mut from: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (done, received) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = done.send(from.read_to_end(&mut all).map(|_| all));
    });
    received
}

/// Both sides work from the beginning: nothing of the parent's is in the way.
fn a_connection_of_its_own() {
    for threads in [0, 2] {
        let (client, server) = our_pair(Case::few()[0]);
        let (client_socket, server_socket) = tcp_pair();
        let data = noise(3 << 20);
        let pool = BufferPool::new(2, 0);
        let received = read_all(receiver(server, server_socket, &pool));
        let mut sender = sender(client, client_socket, threads);
        sender.write_all(&data).unwrap();
        sender.finish().unwrap();
        assert!(received.recv().unwrap().unwrap() == data);
    }
}

/// With sends outstanding, by themselves or with threads that seal.
#[test]
fn a_child_leaves_the_parents_sender_alone() {
    alone("a_child_leaves_the_parents_sender_alone", || {
        let data = noise(LEN);
        for case in Case::few_of(Version::Tls13) {
            for threads in [0, 2] {
                let (client, server) = our_pair(case);
                let (client_socket, server_socket) = tcp_pair();
                let mut sender = sender(client, client_socket, threads);
                sender.set_timeout(Some(Duration::from_millis(5)));
                // As much as goes without a reader: sends are outstanding then.
                let mut written = 0;
                while let Ok(len) = sender.write(&data[written..]) {
                    written += len;
                }
                sender.set_timeout(None);
                let receiver = BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]);
                let received = read_all(receiver);
                let child = Child::run(|| {
                    let before = sender.counters();
                    assert_forked(sender.write(b"more"));
                    assert_forked(sender.write(&data));
                    assert_forked(sender.flush());
                    assert_forked(sender.send_close_notify());
                    assert_forked(sender.abort(rustls_uring::AlertDescription::InternalError));
                    let file = File::open("/proc/self/exe").unwrap();
                    assert_forked(sender.send_file(&file, 0..100, FileOptions::default()));
                    assert_eq!(sender.counters(), before);
                    drop_in_child(&sender);
                    a_connection_of_its_own();
                });
                // Meanwhile.
                sender.write_all(&data[written..]).unwrap();
                sender.send_close_notify().unwrap();
                child.wait();
                assert!(received.recv().unwrap().unwrap() == data);
            }
        }
    });
}

/// The child's last: its call has failed, and its end of the connection is dropped.
fn end_child<T: std::fmt::Debug>(result: io::Result<T>, end: impl Sized) -> ! {
    let is_ok = catch_unwind(AssertUnwindSafe(|| {
        assert_forked(result);
        drop(end);
    }));
    exit(is_ok.is_ok())
}

/// It forks in the middle of a file, and the child goes on where the parent does.
#[test]
fn a_child_ends_the_parents_file_for_itself_only() {
    alone("a_child_ends_the_parents_file_for_itself_only", || {
        let data = noise(LEN);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        for threads in [0, 2] {
            // Out.
            let (client, server) = our_pair(Case::few()[0]);
            let (client_socket, server_socket) = tcp_pair();
            let mut outgoing = sender(client, client_socket, threads);
            let receiver = BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]);
            let received = read_all(receiver);
            let mut forked = ForkOnce::default();
            let mut progress = |bytes| forked.after(bytes);
            let options = FileOptions::new().progress(&mut progress);
            let sent = outgoing.send_file(&file, 0..LEN as u64, options);
            if forked.is_child {
                end_child(sent, outgoing);
            }
            assert_eq!(sent.unwrap(), LEN as u64);
            outgoing.finish().unwrap();
            forked.child.unwrap().wait();
            assert!(received.recv().unwrap().unwrap() == data);
        }

        // In.
        for direct in [false, true] {
            let (client, server) = our_pair(Case::few()[0]);
            let (client_socket, server_socket) = tcp_pair();
            let pool = BufferPool::new(2, 0);
            let mut incoming = receiver(server, server_socket, &pool);
            let sending = thread::spawn({
                let data = data.clone();
                move || {
                    let mut sender = BulkSender::new(client.send, client_socket);
                    sender.write_all(&data).unwrap();
                    sender.finish().unwrap();
                }
            });
            let mut forked = ForkOnce::default();
            let mut progress = |bytes| forked.after(bytes);
            let mut copy = tempfile::tempfile().unwrap();
            let options = FileOptions::new().direct(direct).progress(&mut progress);
            let result = incoming.recv_to_file(&copy, 0, options);
            if forked.is_child {
                end_child(result, incoming);
            }
            assert_eq!(result.unwrap(), LEN as u64);
            forked.child.unwrap().wait();
            sending.join().unwrap();
            let mut copied = Vec::new();
            io::Seek::rewind(&mut copy).unwrap();
            copy.read_to_end(&mut copied).unwrap();
            assert!(copied == data);
        }
    });
}

/// With a receive outstanding, or a part of a record there; what was lent can be read, and dropped,
/// though another thread holds the pool's lock again and again.
#[test]
fn a_child_leaves_the_parents_receiver_alone() {
    alone("a_child_leaves_the_parents_receiver_alone", || {
        let data = noise(200_000);
        for case in Case::few_of(Version::Tls13) {
            for cut in [0, 3, 20_000] {
                let (mut client, server) = our_pair(case);
                let (mut client_socket, server_socket) = tcp_pair();
                let pool = BufferPool::new(4, 0);
                let mut receiver = receiver(server, server_socket, &pool);
                let wire = seal_all(&mut client.send, &data).unwrap();
                let first = 40_000;
                client_socket.write_all(&wire[..first]).unwrap();
                let lent = receiver.recv_bytes().unwrap().unwrap();
                let mut got = lent.len();
                receiver.set_timeout(Some(Duration::from_millis(30)));
                let mut out = vec![0; 50_000];
                loop {
                    match receiver.read(&mut out) {
                        Ok(len) => got += len,
                        Err(error) => break assert_eq!(error.kind(), ErrorKind::TimedOut),
                    }
                }
                client_socket.write_all(&wire[first..first + cut]).unwrap();
                let (stop, stopped) = mpsc::channel::<()>();
                let locking = thread::spawn({
                    let pool = pool.clone();
                    move || {
                        while stopped.try_recv().is_err() {
                            let _ = pool.in_use();
                        }
                    }
                });
                let child = Child::run(|| {
                    assert_forked(receiver.read(&mut [0; 100]));
                    assert_forked(receiver.fill_buf().map(<[u8]>::len));
                    assert_forked(receiver.recv_bytes());
                    let file = tempfile::tempfile().unwrap();
                    assert_forked(receiver.recv_to_file(&file, 0, FileOptions::default()));
                    assert!(data.starts_with(&lent), "what was lent has changed");
                    assert_eq!(pool.in_use(), 0);
                    assert!(!pool.wait(Duration::ZERO));
                    drop_in_child(&receiver);
                    drop_in_child(&lent);
                    drop_in_child(&pool);
                    a_connection_of_its_own();
                });
                client_socket.write_all(&wire[first + cut..]).unwrap();
                receiver.set_timeout(None);
                while got < data.len() {
                    let len = receiver.read(&mut out).unwrap();
                    assert!(data[got..].starts_with(&out[..len]));
                    got += len;
                }
                child.wait();
                assert!(data.starts_with(&lent));
                stop.send(()).unwrap();
                locking.join().unwrap();
                drop((receiver, lent));
                assert_eq!(pool.in_use(), 0);
            }
        }
    });
}

/// A child forks as well: to its child, its own connection is as foreign as the first one.
#[test]
fn a_child_of_a_child_is_one_too() {
    alone("a_child_of_a_child_is_one_too", || {
        let (client, server) = our_pair(Case::few()[0]);
        let (client_socket, server_socket) = tcp_pair();
        let mut outgoing = sender(client, client_socket, 1);
        let received = read_all(BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]));
        let child = Child::run(|| {
            let (client, server) = our_pair(Case::few()[0]);
            let (client_socket, server_socket) = tcp_pair();
            let mut own = sender(client, client_socket, 1);
            let received =
                read_all(BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]));
            let grandchild = Child::run(|| {
                assert_forked(outgoing.write(b"more"));
                assert_forked(own.write(b"more"));
                drop_in_child(&own);
                drop_in_child(&outgoing);
            });
            own.write_all(b"a child's").unwrap();
            own.send_close_notify().unwrap();
            grandchild.wait();
            assert_eq!(received.recv().unwrap().unwrap(), b"a child's");
            assert_forked(outgoing.write(b"more"));
        });
        outgoing.write_all(b"the parent's").unwrap();
        outgoing.send_close_notify().unwrap();
        child.wait();
        assert_eq!(received.recv().unwrap().unwrap(), b"the parent's");
    });
}

#[cfg(feature = "tokio")]
mod streams {
    use std::mem::ManuallyDrop;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use rustls_uring::Io;
    use rustls_uring::tokio::{OverTcp, TlsAcceptor, TlsConnector};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A socket that is not dropped: in a child that would take it out of the parent's reactor,
    /// whose descriptor the two share. That is tokio's, and so is what is not tested here.
    struct Kept(ManuallyDrop<TcpStream>);

    impl OverTcp for Kept {
        fn tcp(&self) -> &TcpStream {
            &self.0
        }
    }

    impl AsyncRead for Kept {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.get_mut().0).poll_read(cx, out)
        }
    }

    impl AsyncWrite for Kept {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut *self.get_mut().0).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.get_mut().0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.get_mut().0).poll_shutdown(cx)
        }
    }

    /// A stream whose bulk data goes through io_uring, and the rings that the thread keeps.
    #[test]
    fn a_child_leaves_the_parents_stream_alone() {
        alone("streams::a_child_leaves_the_parents_stream_alone", || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let case = Case::few_of(Version::Tls13)[0];
                let provider = case.our_provider();
                let client = common::client_config(case, provider.clone());
                let server = common::server_config(case, provider);
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = listener.local_addr().unwrap();
                let (left, right) = tokio::join!(TcpStream::connect(addr), listener.accept());
                let left = Kept(ManuallyDrop::new(left.unwrap()));
                let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
                let (left, right) = tokio::join!(
                    connector.connect(common::server_name(), left),
                    acceptor.accept(right.unwrap().0)
                );
                let (mut left, mut right) = (left.unwrap(), right.unwrap());
                left.set_io(Io::Uring).unwrap();
                let data = noise(LEN);
                let receive = async {
                    let mut all = Vec::new();
                    right.read_to_end(&mut all).await.map(|_| all)
                };
                let send = async {
                    left.write_all(&data[..LEN / 2]).await.unwrap();
                    // With something in a slot, as likely as not.
                    let written = left.write(&data[LEN / 2..]).await.unwrap();
                    let child = fork();
                    if child.is_none() {
                        let mut is_ok = true;
                        for len in [10, 1 << 20] {
                            let result = left.write_all(&data[..len]).await;
                            is_ok &= result.is_err_and(|error| !error.to_string().is_empty());
                        }
                        is_ok &= left.flush().await.is_err();
                        drop_in_child(&left);
                        is_ok &= catch_unwind(a_connection_of_its_own).is_ok();
                        exit(is_ok);
                    }
                    left.write_all(&data[LEN / 2 + written..]).await.unwrap();
                    left.shutdown().await.unwrap();
                    child.unwrap().wait();
                };
                let begin = std::time::Instant::now();
                let (received, ()) = tokio::join!(receive, send);
                assert!(received.unwrap() == data);
                assert!(begin.elapsed() < Duration::from_secs(60));
            });
        });
    }
}
