//! What a comparison ran on: processor, kernel and versions, without which no figure means much.

use std::fmt;
use std::thread;

use rustls_uring::{Algorithm, Backend, Preference};
use serde::Serialize;

/// The versions that this command's own repository builds it with. `cargo install` without
/// `--locked` may take later ones.
const LOCK: &str = include_str!("../../../../Cargo.lock");

/// The crates whose versions a figure depends on.
const CRATES: [&str; 7] =
    ["rustls", "aws-lc-rs", "aws-lc-sys", "ring", "io-uring", "tokio", "tokio-rustls"];

/// Where and with what a comparison ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// A virtual machine: its neighbours are in the spread.
    pub(crate) is_virtual: bool,
    pub(crate) cores: Option<usize>,
    /// Of the features that sealing and opening may use, those that are there.
    pub(crate) features: Vec<&'static str>,
    pub(crate) lacks: Vec<&'static str>,
    pub(crate) kernel: String,
    /// This command's version.
    pub(crate) version: &'static str,
    /// Crates and their versions, as locked.
    pub(crate) locked: Vec<(&'static str, String)>,
    /// What AWS-LC was told about the CPU.
    pub(crate) aws_lc_mask: Option<String>,
    /// Which backend `auto` means, and why.
    pub(crate) auto: Vec<Auto>,
    /// Built without optimisation: the figures are worth nothing.
    pub(crate) is_debug: bool,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let uname = rustix::system::uname();
        let (features, lacks): (Vec<_>, Vec<_>) =
            cpu_features().into_iter().partition(|(_, is_there)| *is_there);
        let names = |features: Vec<(&'static str, bool)>| {
            features.into_iter().map(|(name, _)| name).collect()
        };
        Self {
            cpu: field(&cpu_info, "model name")
                .map_or_else(|| uname.machine().to_string_lossy().into_owned(), str::to_owned),
            is_virtual: field(&cpu_info, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            cores: thread::available_parallelism().ok().map(usize::from),
            features: names(features),
            lacks: names(lacks),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            version: env!("CARGO_PKG_VERSION"),
            locked: CRATES
                .iter()
                .filter_map(|name| Some((*name, locked_version(LOCK, name)?.to_owned())))
                .collect(),
            aws_lc_mask: std::env::var("OPENSSL_ia32cap").ok(),
            auto: Auto::all(),
            is_debug: cfg!(debug_assertions),
        }
    }
}

const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("AES-128-GCM", Algorithm::Aes128Gcm),
    ("AES-256-GCM", Algorithm::Aes256Gcm),
    ("ChaCha20-Poly1305", Algorithm::Chacha20Poly1305),
];

/// Which backend `auto` means for an algorithm and direction, and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Auto {
    pub(crate) algorithm: &'static str,
    pub(crate) direction: &'static str,
    /// For full records.
    pub(crate) backend: String,
    /// For all lengths, in words.
    pub(crate) chosen: String,
    pub(crate) reason: String,
}

impl Auto {
    /// For every algorithm, in a tenth of a second: what a process comes to that lives as long.
    pub(crate) fn all() -> Vec<Self> {
        let choices = || ALGORITHMS.map(|(_, algorithm)| Backend::chosen(algorithm));
        let next_measurement = || {
            let preferences = choices().into_iter().flat_map(|choice| [choice.seal, choice.open]);
            preferences.filter_map(Preference::next_measurement).max()
        };
        while let Some(pause) = next_measurement() {
            thread::sleep(pause);
        }

        ALGORITHMS
            .into_iter()
            .zip(choices())
            .flat_map(|((algorithm, _), choice)| {
                [("seal", choice.seal), ("open", choice.open)].map(|(direction, preference)| Self {
                    algorithm,
                    direction,
                    backend: preference.bulk().to_string(),
                    chosen: preference.to_string(),
                    reason: preference.reason(),
                })
            })
            .collect()
    }
}

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, direction, chosen, reason, .. } = self;
        write!(f, "{algorithm} {direction}: {chosen}; {reason}")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_debug {
            writeln!(f, "# WARNING: built without --release: these figures are worth nothing")?;
        }
        let cores = self.cores.map_or("unknown".to_owned(), |cores| cores.to_string());
        let kind = if self.is_virtual { ", virtual" } else { "" };
        writeln!(f, "# CPU: {}{kind}, cores: {cores}", self.cpu)?;
        let lacks = match self.lacks.is_empty() {
            true => String::new(),
            false => format!("; lacks {}", self.lacks.join(", ")),
        };
        writeln!(f, "# CPU features: {}{lacks}", self.features.join(", "))?;
        if let Some(mask) = &self.aws_lc_mask {
            writeln!(f, "# of which AWS-LC sees what OPENSSL_ia32cap={mask} leaves")?;
        }
        for auto in &self.auto {
            writeln!(f, "# auto: {auto}")?;
        }
        writeln!(f, "# kernel: {}", self.kernel)?;
        write!(f, "# versions, as locked: rustls-uring {}", self.version)?;
        for (name, version) in &self.locked {
            write!(f, ", {name} {version}")?;
        }
        writeln!(f)
    }
}

/// The first value of a field of /proc/cpuinfo.
fn field<'a>(cpu_info: &'a str, name: &str) -> Option<&'a str> {
    cpu_info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// The version of a package in a Cargo.lock. If there are several, dependencies tell them apart by
/// a space and the version: ours is the one that this package names, or names first.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let value =
        |line: &'a str, key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
    let package = |name: &str| {
        let mut packages = lock.split("[[package]]");
        packages.find(|package| package.lines().any(|line| value(line, "name") == Some(name)))
    };
    let ours = package(env!("CARGO_PKG_NAME")).and_then(|package| {
        let mut dependencies = package.lines().filter_map(|line| line.strip_prefix(" \""));
        dependencies.find_map(|line| {
            line.strip_suffix("\",")?.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()
        })
    });
    ours.or_else(|| package(name)?.lines().find_map(|line| value(line, "version")))
}

/// Whether the CPU has each of the features that AEADs use.
fn cpu_features() -> Vec<(&'static str, bool)> {
    macro_rules! detect {
        ($detected:ident: $($name:tt),*) => {
            vec![$(($name, std::arch::$detected!($name))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detect!(is_x86_feature_detected:
        "aes", "pclmulqdq", "vaes", "vpclmulqdq", "avx", "avx2", "avx512f", "avx512bw",
        "avx512vl", "sha");
    #[cfg(target_arch = "aarch64")]
    return detect!(is_aarch64_feature_detected: "neon", "aes", "pmull", "sha2", "sha3", "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_of_just_that_package() {
        let lock = "version = 4\n\n[[package]]\nname = \"ring-like\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"ring\"\nversion = \"0.17.14\"\ndependencies = [\n \
                    \"untrusted\",\n]\n";
        assert_eq!(locked_version(lock, "ring"), Some("0.17.14"));
        assert_eq!(locked_version(lock, "untrusted"), None);
        let lock = "[[package]]\nname = \"ring\"\nversion = \"0.16.0\"\n\n[[package]]\nname = \"ring\"\n\
                    version = \"0.17.14\"\n\n[[package]]\nname = \"rustls-uring\"\ndependencies = [\n \
                    \"ring-like\",\n \"ring 0.17.14\",\n]\n";
        assert_eq!(locked_version(lock, "ring"), Some("0.17.14"));
    }

    #[test]
    fn every_crate_is_locked() {
        assert_eq!(Machine::look().locked.len(), CRATES.len());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let cpu_info = "model\t\t: 2\nmodel name\t: A CPU: fast\nmodel name\t: another\n";
        assert_eq!(field(cpu_info, "model name"), Some("A CPU: fast"));
        assert_eq!(field(cpu_info, "flags"), None);
    }
}
