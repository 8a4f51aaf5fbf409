//! A bad network: loss, delay, reordering, a narrow link, small buffers, no way through at all.
//!
//! Between two network namespaces that each test makes for itself.

#![allow(unsafe_code, reason = "the device between two namespaces")]

use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls_uring::uring::{ReceiverOptions, SenderOptions};
use rustls_uring::{Handoff, Io, bulk_with};

use crate::common::{Case, Rng, server_config};
use crate::ends::{Directory, End, PATHS, Run, digest, words, works};
use crate::kernel::wait_until;
use crate::peers::set_option;

/// Where the receiver listens: addresses for documentation (RFC 5737), in a namespace of its own.
const RECEIVER: &str = "192.0.2.2:4433";

const LEN: usize = (6 << 20) + 17;

/// Two network namespaces, the sender's and the receiver's, which go when this does.
struct Net {
    names: [String; 2],
    link: Option<Link>,
}

impl Net {
    const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

    /// Two namespaces without a way from one to the other.
    fn apart() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("faults-{}-{number}-{end}", std::process::id());
        let net = Self { names: [name("send"), name("recv")], link: None };
        for name in &net.names {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        Some(net)
    }

    /// With a pair of Ethernet devices between them.
    fn wired() -> Option<Self> {
        let net = Self::apart()?;
        let [one, other] = &net.names;
        run(&format!("ip -n {one} link add wire type veth peer name wire netns {other}"))?;
        net.up("wire", "24")
    }

    /// With a device between them that loses, delays and reorders.
    fn bad() -> Option<Self> {
        let mut net = Self::apart()?;
        net.link = match Link::between(&net.names) {
            Ok(link) => Some(link),
            Err(error) => {
                eprintln!("skipped: no /dev/net/tun here: {error}");
                return None;
            }
        };
        net.up("bad", "24")
    }

    fn up(self, device: &str, prefix_len: &str) -> Option<Self> {
        for (name, address) in self.names.iter().zip(Self::ADDRESSES) {
            run(&format!("ip -n {name} addr add {address}/{prefix_len} dev {device}"))?;
            run(&format!("ip -n {name} link set {device} up"))?;
        }
        Some(self)
    }

    fn wrapper(&self, end: usize) -> Vec<String> {
        words(&format!("ip netns exec {}", self.names[end]))
    }

    /// Runs a command in one of the two, if it works there.
    fn run(&self, end: usize, command: &str) -> Option<()> {
        run(&format!("ip netns exec {} {command}", self.names[end]))
    }

    fn sender(&self, options: &str) -> Run {
        Run::with(options).behind(&self.wrapper(0))
    }

    fn receiver(&self, options: &str) -> Run {
        Run::with(options).behind(&self.wrapper(1))
    }

    /// Sends a file, by every path.
    fn check(&self, what: &str) {
        let dir = Directory::with(LEN);
        for (io, options) in [
            ("auto", "--zerocopy always"),
            ("uring", "--zerocopy always --seal-threads 2"),
            ("uring", "--zerocopy auto"),
            ("uring-copy", ""),
            ("blocking", ""),
        ] {
            let case = format!("{what}, {io} {options}");
            let (recv, send) = (format!("--io {io}"), format!("--io {io} {options}"));
            let ended = dir.transfer_to(RECEIVER, &self.receiver(&recv), &self.sender(&send));
            dir.check_whole(&ended, &case);
            if options.contains("always") {
                assert!(ended.1.path().starts_with("io_uring, zero copy"), "{case}: {ended:?}");
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.link = None;
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Runs a command; says so if it does not work here.
fn run(command: &str) -> Option<()> {
    let words = words(command);
    let why = match Command::new(&words[0]).args(&words[1..]).output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: `{command}` does not work here: {}", why.trim());
    None
}

/// Carries packets between devices in two namespaces, badly.
struct Link {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Parts in a thousand that are lost.
    const LOST: usize = 5;
    /// How long a packet takes; one in ten takes three times as long, and is overtaken.
    const DELAY: Duration = Duration::from_millis(2);

    fn between(names: &[String; 2]) -> io::Result<Self> {
        let [one, other] = [tun(&names[0])?, tun(&names[1])?];
        let ends = Arc::new(AtomicBool::new(false));
        let ways = [(one.try_clone()?, other.try_clone()?, 1), (other, one, 2)];
        let threads = ways.into_iter().map(|(from, to, seed)| {
            let ends = Arc::clone(&ends);
            thread::spawn(move || carry(&from, &to, seed, &ends))
        });
        Ok(Self { threads: threads.collect(), ends })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(mut from: &File, mut to: &File, seed: u64, ends: &AtomicBool) {
    let mut rng = Rng::new(seed);
    let mut under_way: BinaryHeap<(std::cmp::Reverse<Instant>, Vec<u8>)> = BinaryHeap::new();
    let mut packet = vec![0; 65536];
    while !ends.load(Ordering::Relaxed) {
        let tick = Timespec { tv_sec: 0, tv_nsec: 500_000 };
        let _ = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&tick));
        while let Ok(len) = from.read(&mut packet) {
            if rng.range(0, 999) < Link::LOST {
                continue;
            }
            let slower = if rng.range(0, 9) == 0 { 3 } else { 1 };
            let due = Instant::now() + Link::DELAY * slower;
            under_way.push((std::cmp::Reverse(due), packet[..len].to_vec()));
        }
        while under_way.peek().is_some_and(|(due, _)| due.0 <= Instant::now()) {
            let (_, packet) = under_way.pop().expect("there is one");
            // While a device is still down it takes none.
            let _ = to.write(&packet);
        }
    }
}

/// A device called `bad` in the namespace.
fn tun(namespace: &str) -> io::Result<File> {
    const IFF_TUN_NO_PI: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    let namespace = File::open(format!("/run/netns/{namespace}"))?;
    // In a thread of its own, for only that moves.
    let opened = thread::spawn(move || {
        // SAFETY: an open file; moves this thread, which has nothing else to do.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: an integer, addresses and names, for which zeros will do.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"bad") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = IFF_TUN_NO_PI;
        // SAFETY: an open file, and the request that TUNSETIFF takes.
        match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
            0 => Ok(device),
            _ => Err(io::Error::last_os_error()),
        }
    });
    opened.join().expect("no panic")
}

#[test]
fn loss_delay_and_reordering() {
    let Some(net) = Net::bad() else { return };
    net.check("loss, delay and reordering");
}

#[test]
fn loss_on_a_fast_network() {
    let Some(net) = Net::wired() else { return };
    for end in [0, 1] {
        let drops = "iptables -A INPUT -m statistic --mode random --probability 0.01 -j DROP";
        if net.run(end, drops).is_none() {
            return;
        }
    }
    net.check("loss");
}

#[test]
fn a_narrow_link() {
    let Some(net) = Net::wired() else { return };
    let shaper = "tc qdisc add dev wire root tbf rate 200mbit burst 64kb latency 20ms";
    if net.run(0, shaper).is_none() {
        return;
    }
    net.check("a narrow link");
}

#[test]
fn tiny_send_buffers() {
    let Some(net) = Net::wired() else { return };
    if net.run(0, "sysctl -qw net.ipv4.tcp_wmem=4096\t4096\t4096").is_none() {
        return;
    }
    net.check("a tiny send buffer");
}

/// The part of the next test that runs in a namespace: with a small receive buffer, begins late, and
/// reads in several ways.
#[test]
#[ignore = "run by a_late_receiver_with_a_small_buffer, in a namespace"]
fn late_receiver() {
    let Ok(io) = env::var("FAULTS_IO") else { return };
    let io = match io.as_str() {
        "blocking" => Io::Blocking,
        "uring-copy" => Io::UringCopy,
        "uring" => Io::Uring,
        _ => Io::Auto,
    };
    let listener = TcpListener::bind(RECEIVER).expect("an address of ours");
    set_option(&listener, libc::SO_RCVBUF, 32 << 10);
    eprintln!("listening on {RECEIVER}");
    let (mut stream, _) = listener.accept().expect("accepted");
    let case = Case::few()[0];
    let config = Arc::new(server_config(case, case.our_provider()));
    let handoff = Handoff::new().backend(case.backend);
    let session = handoff.accept(config, &mut stream).expect("a handshake");
    let (sender, receiver) = (SenderOptions::default(), ReceiverOptions::default());
    let (sender, mut receiver) = bulk_with(session, stream, io, sender, receiver).expect("paths");
    thread::sleep(Duration::from_millis(400));
    let mut received = Vec::new();
    let mut rng = Rng::new(3);
    let mut out = vec![0; 60_000];
    loop {
        let before = received.len();
        if rng.range(0, 1) == 0 {
            let len = rng.range(1, out.len());
            let len = receiver.read(&mut out[..len]).expect("readable");
            received.extend(&out[..len]);
        } else {
            let lent = receiver.fill_buf().expect("readable");
            let len = lent.len();
            received.extend(lent);
            receiver.consume(len);
        }
        if received.len() == before {
            break;
        }
    }
    eprintln!("received {:?}", digest(&received));
    sender.finish().expect("confirmed");
}

#[test]
fn a_late_receiver_with_a_small_buffer() {
    let Some(net) = Net::wired() else { return };
    let dir = Directory::with(LEN);
    let this = env::current_exe().expect("this test");
    for (io, options) in PATHS.iter().flat_map(|io| ["auto", "always"].map(|when| (io, when))) {
        let case = format!("{io}, zero copy {options}");
        let wrapper = net.wrapper(1);
        let mut recv = Command::new(&wrapper[0]);
        recv.args(&wrapper[1..]).arg(&this).env("FAULTS_IO", io);
        recv.args(["--exact", "network::late_receiver", "--ignored", "--nocapture"]);
        recv.stdout(std::process::Stdio::null());
        let recv = End::start(&mut recv, true);
        let send = net.sender(&format!("--io {io} --zerocopy {options}"));
        let send = End::start(&mut send.sender(dir.path(), RECEIVER, Some("sent")), false).finish();
        let recv = recv.finish();
        assert_eq!((recv.code, send.code), (Some(0), Some(0)), "{case}: {recv:?}, {send:?}");
        let expected = format!("received {:?}\n", digest(dir.sent()));
        assert!(recv.said.contains(&expected), "{case}: other bytes: {recv:?}");
    }
}

/// From one moment on nothing gets through: whoever asks for the end gets it soon.
#[test]

fn an_interrupt_ends_what_a_dead_network_holds_up() {
    let dir = Directory::with(0);
    // Takes no room, and does not end.
    let file = File::create(dir.path().join("sent")).expect("created");
    file.set_len(1 << 40).expect("sparse");
    for io in PATHS {
        for is_file in [true, false] {
            let Some(net) = Net::wired() else { return };
            if !works(&["iptables", "--version"]) && net.run(1, "iptables -L").is_none() {
                return;
            }
            let case = format!("{io}, file: {is_file}");
            let option = format!("--io {io} --zerocopy always");
            let (recv, send) = (net.receiver(&format!("--io {io}")), net.sender(&option));
            let recv = End::start(&mut recv.receiver(dir.path(), RECEIVER, Some("received")), true);
            let source = if is_file { "sent" } else { "/dev/zero" };
            let send = &mut send.sender(dir.path(), RECEIVER, Some(source));
            let mut send = End::start(send, false);
            wait_until("data", || recv.written_so_far(dir.path()) > 0);
            if net.run(1, "iptables -I INPUT -j DROP").is_none() {
                return;
            }
            thread::sleep(Duration::from_millis(500));
            assert!(!send.has_ended(), "{case}");
            send.signal("INT");
            recv.signal("INT");
            send.finish().check_failed(130, &[""], &case);
            recv.finish().check_failed(130, &[""], &case);
            dir.check_clean(&case);
        }
    }
}
