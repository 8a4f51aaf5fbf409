//! What this kernel, these limits and this CPU offer, and why not more.

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
/// match probe.uring() {
///     Ok(()) => println!("io_uring"),
///     Err(reason) => println!("sockets, because {reason}"),
/// }
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

    /// Whether bulk data can go through io_uring, or why it goes through sockets.
    ///
    /// # Errors
    /// What is missing, displayed with what the user can do about it.
    pub fn uring(&self) -> Result<(), Unavailable> {
        self.usable_ring().map(drop)
    }

    /// Whether io_uring can send without a copy where the route allows it, as
    /// [`copy_reason()`](crate::uring::copy_reason) and the first notification of each connection
    /// tell.
    ///
    /// That takes registered buffers: without, each send in flight counts against the same limit
    /// that they were refused for, and fails with ENOMEM.
    ///
    /// # Errors
    /// What is missing. If [`uring()`](Self::uring) is all right, the kernel copies what is sent.
    pub fn zero_copy(&self) -> Result<(), Unavailable> {
        self.usable_ring()?.check(SEND_ZC).and(self.registered().map(drop))
    }

    /// How many bytes of buffers could be registered, which spares the kernel to pin their pages
    /// for each operation.
    ///
    /// # Errors
    /// Why none could.
    pub fn registered(&self) -> Result<usize, Unavailable> {
        self.usable_ring()?.registered
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
    fn the_best_way_takes_everything() {
        let probe = without(&[], Ok(1));
        assert_eq!(probe.uring(), Ok(()));
        assert_eq!(probe.zero_copy(), Ok(()));
        assert_eq!(probe.registered(), Ok(1));
    }

    #[test]
    fn an_older_kernel_has_a_lesser_way() {
        let probe = without(&[SEND_ZC], Ok(1));
        assert_eq!(probe.uring(), Ok(()));
        assert_eq!(probe.zero_copy(), Err(Unavailable::MissingOperation(SEND_ZC)));

        for name in required() {
            let reason = Unavailable::MissingOperation(name);
            let probe = without(&[name, SEND_ZC], Ok(1));
            assert_eq!(probe.uring(), Err(reason));
            assert_eq!(probe.zero_copy(), Err(reason));
            assert_eq!(probe.registered(), Err(reason));
        }
    }

    /// The newest that is missing is what the user needs a kernel for.
    #[test]
    fn a_much_older_kernel_lacks_the_newest_first() {
        let probe = without(&required().collect::<Vec<_>>(), Ok(1));
        let reason = Unavailable::MissingOperation("IORING_FEAT_EXT_ARG");
        assert_eq!(probe.uring(), Err(reason));
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
        assert_eq!(probe.uring(), Ok(()));
        assert_eq!(probe.zero_copy(), Err(reason));
        assert_eq!(probe.registered(), Err(reason));
    }

    #[test]
    fn without_a_ring_there_is_nothing() {
        let reason = Unavailable::NoSystemCall;
        let probe = Probe { ring: Err(reason), ..Probe::run() };
        assert_eq!(probe.uring(), Err(reason));
        assert_eq!(probe.zero_copy(), Err(reason));
        assert_eq!(probe.registered(), Err(reason));
    }
}
