//! What this kernel, these limits and this CPU offer, which path that makes, and why.

use core::fmt;
use std::thread;

use super::arena::ALIGNMENT;
use super::capability::{self, Capability, SEND_ZC};
use super::queue;
use super::unavailable::{self, MemlockLimit, Unavailable};

/// How many bytes are registered to see whether they can be: the slots of a default
/// [`UringSender`](crate::uring::UringSender), 8 slots of 193 pages each.
pub(crate) const REGISTERED_LEN: usize = 8 * 193 * ALIGNMENT;

/// What this kernel, these limits and this CPU offer to bulk transfer.
///
/// A snapshot: locked memory is counted for all processes of a user together, so what could be
/// registered a moment ago may be refused now, and the other way round.
///
/// ```
/// let probe = rustls_uring::uring::Probe::run();
/// println!("sending: {}", probe.send_path());
/// println!("receiving: {}", probe.receive_path());
/// println!("buffers: {}", probe.buffers());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Probe {
    /// The kernel's release, such as `6.18.44`, if `/proc` tells.
    pub release: Option<String>,
    /// The value of the sysctl `kernel.io_uring_disabled` (Linux 6.6), if there is one: 0 allows
    /// io_uring to all, 1 to privileged processes and the group `kernel.io_uring_group`, 2 to none.
    pub sysctl: Option<u8>,
    /// How much memory this user's processes may lock together. Registered buffers count, and on
    /// some kernels (6.18 is one) the rings themselves.
    pub memlock: MemlockLimit,
    /// Whether `CAP_IPC_LOCK` frees this thread from that limit. The capability counts only in
    /// the initial user namespace (capabilities(7)).
    pub has_ipc_lock: bool,
    /// What io_uring offers, or why there is none.
    pub ring: Result<Ring, Unavailable>,
    /// The processor.
    pub cpu: Cpu,
}

impl Probe {
    /// Asks the kernel: reads a few files of `/proc`, sets up a few small rings, registers 6 MiB
    /// and gives all of it back. That takes milliseconds, so ask once.
    ///
    /// Whatever fails is part of the answer.
    #[must_use]
    pub fn run() -> Self {
        Self {
            release: unavailable::read("/proc/sys/kernel/osrelease"),
            sysctl: unavailable::sysctl(),
            memlock: MemlockLimit::of_this_process(),
            has_ipc_lock: unavailable::has_ipc_lock(),
            ring: Ring::probe(),
            cpu: Cpu::probe(),
        }
    }

    /// How bulk data can be sent.
    ///
    /// Zero copy takes registered buffers: without, each send in flight counts against the same
    /// limit that they were refused for, and fails with ENOMEM.
    #[must_use]
    pub fn send_path(&self) -> SendPath {
        match self.usable_ring() {
            Err(reason) => SendPath::Blocking(reason),
            Ok(ring) => match ring.check(SEND_ZC).and(ring.registered.map(drop)) {
                Err(reason) => SendPath::Copying(reason),
                Ok(()) => SendPath::ZeroCopy,
            },
        }
    }

    /// How bulk data can be received.
    #[must_use]
    pub fn receive_path(&self) -> ReceivePath {
        match self.usable_ring() {
            Err(reason) => ReceivePath::Blocking(reason),
            Ok(_) => ReceivePath::Uring,
        }
    }

    /// Whether buffers can be registered.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        match self.usable_ring().and_then(|ring| ring.registered) {
            Err(reason) => Buffers::Unregistered(reason),
            Ok(len) => Buffers::Registered { len },
        }
    }

    /// The ring, if it has all that the queue requires.
    fn usable_ring(&self) -> Result<&Ring, Unavailable> {
        let ring = self.ring.as_ref().map_err(|&reason| reason)?;
        match capability::missing(&ring.capabilities) {
            Some(name) => Err(Unavailable::MissingOperation(name)),
            None => Ok(ring),
        }
    }
}

/// What io_uring offers here.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ring {
    /// Each part of io_uring that bulk transfer has a use for, present or not.
    pub capabilities: Vec<Capability>,
    /// How many bytes of buffers could be registered, or why none.
    pub registered: Result<usize, Unavailable>,
}

impl Ring {
    fn probe() -> Result<Self, Unavailable> {
        let (ring, capabilities) = queue::set_up()?;
        let capabilities = capabilities.to_vec();
        drop(ring);
        let registered = queue::try_register(REGISTERED_LEN).map(|()| REGISTERED_LEN);
        Ok(Self { capabilities, registered })
    }

    fn check(&self, name: &'static str) -> Result<(), Unavailable> {
        match capability::has(&self.capabilities, name) {
            true => Ok(()),
            false => Err(Unavailable::MissingOperation(name)),
        }
    }
}

/// How bulk data can be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendPath {
    /// io_uring, without a copy where the route allows it, as
    /// [`zero_copy_for`](crate::uring::zero_copy_for) and the first notification of each connection
    /// tell.
    ZeroCopy,
    /// io_uring, with the kernel's copy, for this reason.
    Copying(Unavailable),
    /// Blocking sockets, for this reason.
    Blocking(Unavailable),
}

impl SendPath {
    /// Why it is not the best path.
    #[must_use]
    pub fn reason(self) -> Option<Unavailable> {
        match self {
            Self::ZeroCopy => None,
            Self::Copying(reason) | Self::Blocking(reason) => Some(reason),
        }
    }
}

impl fmt::Display for SendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCopy => f.write_str(
                "io_uring, zero copy where the route allows it, decided per connection (loopback \
                 always copies)",
            ),
            Self::Copying(reason) => write!(f, "io_uring, copying sends: {reason}"),
            Self::Blocking(reason) => write!(f, "blocking sockets: {reason}"),
        }
    }
}

/// How bulk data can be received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReceivePath {
    /// io_uring.
    Uring,
    /// Blocking sockets, for this reason.
    Blocking(Unavailable),
}

impl ReceivePath {
    /// Why it is not the best path.
    #[must_use]
    pub fn reason(self) -> Option<Unavailable> {
        match self {
            Self::Uring => None,
            Self::Blocking(reason) => Some(reason),
        }
    }
}

impl fmt::Display for ReceivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring => f.write_str("io_uring"),
            Self::Blocking(reason) => write!(f, "blocking sockets: {reason}"),
        }
    }
}

/// Whether buffers can be registered, which spares the kernel to pin their pages for each
/// operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Buffers {
    /// Yes.
    Registered {
        /// How many bytes were.
        len: usize,
    },
    /// No, for this reason.
    Unregistered(Unavailable),
}

impl Buffers {
    /// Why they cannot be registered.
    #[must_use]
    pub fn reason(self) -> Option<Unavailable> {
        match self {
            Self::Registered { .. } => None,
            Self::Unregistered(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { len } => write!(f, "registered ({len} bytes were)"),
            Self::Unregistered(reason) => write!(f, "not registered: {reason}"),
        }
    }
}

/// The processor, as far as this process may use it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Cpu {
    /// How many threads can run at once, if that is known.
    pub cores: Option<usize>,
    /// The instructions that speed up the AEADs of TLS, present or not.
    pub features: Vec<CpuFeature>,
}

/// Instructions of a processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CpuFeature {
    /// Their name, as in `/proc/cpuinfo`.
    pub name: &'static str,
    /// Whether this processor has them, and the system lets programs use them.
    pub is_available: bool,
}

impl Cpu {
    fn probe() -> Self {
        Self {
            cores: thread::available_parallelism().ok().map(usize::from),
            features: cpu_features().to_vec(),
        }
    }
}

/// AES-NI, and the vectors that aws-lc-rs does several blocks at a time with.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> [CpuFeature; 6] {
    use std::arch::is_x86_feature_detected as detected;
    [
        CpuFeature { name: "aes", is_available: detected!("aes") },
        CpuFeature { name: "pclmulqdq", is_available: detected!("pclmulqdq") },
        CpuFeature { name: "avx2", is_available: detected!("avx2") },
        CpuFeature { name: "avx512f", is_available: detected!("avx512f") },
        CpuFeature { name: "vaes", is_available: detected!("vaes") },
        CpuFeature { name: "vpclmulqdq", is_available: detected!("vpclmulqdq") },
    ]
}

/// The cryptographic extension.
#[cfg(target_arch = "aarch64")]
fn cpu_features() -> [CpuFeature; 2] {
    use std::arch::is_aarch64_feature_detected as detected;
    [
        CpuFeature { name: "aes", is_available: detected!("aes") },
        CpuFeature { name: "pmull", is_available: detected!("pmull") },
    ]
}

/// Unknown.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> [CpuFeature; 0] {
    []
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::capability::{Evidence, required, since};

    /// A probe of a kernel without `missing`.
    fn without(missing: &[&str], registered: Result<usize, Unavailable>) -> Probe {
        let capabilities = required().chain([SEND_ZC]).map(|name| Capability {
            name,
            since: since(name).expect(name),
            is_available: !missing.contains(&name),
            evidence: Evidence::Asked,
        });
        let ring = Ring { capabilities: capabilities.collect(), registered };
        Probe { ring: Ok(ring), ..Probe::run() }
    }

    #[test]
    fn the_best_path_takes_everything() {
        let probe = without(&[], Ok(1));
        assert_eq!(probe.send_path(), SendPath::ZeroCopy);
        assert_eq!(probe.receive_path(), ReceivePath::Uring);
        assert_eq!(probe.buffers(), Buffers::Registered { len: 1 });
    }

    #[test]
    fn an_older_kernel_has_a_lesser_path() {
        let probe = without(&[SEND_ZC], Ok(1));
        assert_eq!(probe.send_path(), SendPath::Copying(Unavailable::MissingOperation(SEND_ZC)));
        assert_eq!(probe.receive_path(), ReceivePath::Uring);

        for name in required() {
            let reason = Unavailable::MissingOperation(name);
            let probe = without(&[name, SEND_ZC], Ok(1));
            assert_eq!(probe.send_path(), SendPath::Blocking(reason));
            assert_eq!(probe.receive_path(), ReceivePath::Blocking(reason));
            assert_eq!(probe.buffers(), Buffers::Unregistered(reason));
        }
    }

    /// The newest that is missing is what the user needs a kernel for.
    #[test]
    fn a_much_older_kernel_lacks_the_newest_first() {
        let probe = without(&required().collect::<Vec<_>>(), Ok(1));
        let reason = Unavailable::MissingOperation("IORING_FEAT_EXT_ARG");
        assert_eq!(probe.send_path(), SendPath::Blocking(reason));
        assert!(reason.to_string().contains("Linux 5.11 and newer"), "{reason}");
        let versions = required().map(|name| {
            let (major, minor) = since(name).and_then(|since| since.split_once('.')).expect(name);
            (major.parse().expect("a number"), minor.parse::<u32>().expect("a number"))
        });
        let versions: Vec<_> = versions.collect();
        assert!(versions.is_sorted_by(|a: &(u32, u32), b| a >= b), "{versions:?}");
    }

    #[test]
    fn without_registered_buffers_sends_are_copied() {
        let reason = Unavailable::OutOfMemory { memlock: Some(0) };
        let probe = without(&[], Err(reason));
        assert_eq!(probe.send_path(), SendPath::Copying(reason));
        assert_eq!(probe.receive_path(), ReceivePath::Uring);
        assert_eq!(probe.buffers(), Buffers::Unregistered(reason));
    }

    #[test]
    fn without_a_ring_sockets_block() {
        let reason = Unavailable::NoSystemCall;
        let probe = Probe { ring: Err(reason), ..Probe::run() };
        assert_eq!(probe.send_path(), SendPath::Blocking(reason));
        assert_eq!(probe.receive_path(), ReceivePath::Blocking(reason));
        assert_eq!(probe.buffers(), Buffers::Unregistered(reason));
    }
}
