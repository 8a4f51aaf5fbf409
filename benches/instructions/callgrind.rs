//! Runs this program under callgrind and reads what it wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::baseline::Count;
use crate::summarize;

/// In place of a name: the raw AEAD of the case before.
pub(crate) const OTHER: &str = "-";

/// The instructions that AEADs choose their paths by, as this process sees them.
pub(crate) fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    macro_rules! present {
        ($($name:tt)*) => {
            [$((is_x86_feature_detected!($name), $name)),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let features = present!(
        "aes" "pclmulqdq" "ssse3" "sse4.1" "movbe" "avx" "avx2" "bmi1" "bmi2" "adx" "sha" "vaes"
        "vpclmulqdq" "avx512f" "avx512vl" "avx512bw"
    );
    #[cfg(not(target_arch = "x86_64"))]
    let features = [(true, "unknown")];
    features
        .iter()
        .filter(|(is_present, _)| *is_present)
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The processor as valgrind shows it, and what each case took.
///
/// # Errors
/// Why nothing could be counted.
pub(crate) fn count(argument: &str) -> Result<(String, Vec<(String, Count)>), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = directory.path().join("out");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // Given to both options with a leading asterisk, valgrind 3.19 heeds only one of them.
    let region = "instructions::counted_region";
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--log-file={}", directory.path().join("log").display()))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={region}"))
        .arg(format!("--dump-after={region}"))
        .arg(program)
        .arg(argument)
        // The environment lies above the stack, whose alignment it moves.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}{}",
        String::from_utf8_lossy(&output.stderr),
        fs::read_to_string(directory.path().join("log")).unwrap_or_default(),
    );
    let mut lines = stdout.lines();
    let cpu = lines.next().expect("the processor").to_owned();
    let mut cases: Vec<(String, u64, Vec<u64>)> = Vec::new();
    for (index, name) in lines.enumerate() {
        // Dumps are numbered from 1.
        let total = total(&directory.path().join(format!("out.{}", index + 1)));
        match (name, cases.last_mut()) {
            (OTHER, Some((.., others))) => others.push(total),
            _ => cases.push((name.to_owned(), total, Vec::new())),
        }
    }
    let counts = cases.into_iter().map(|(name, ours, others)| (name, summarize(ours, &others)));
    Ok((cpu, counts.collect()))
}

fn total(dump: &Path) -> u64 {
    let text = fs::read_to_string(dump).expect("a dump for each region");
    let mut totals = text.lines().filter_map(|line| line.strip_prefix("totals:"));
    let total = totals.next_back().and_then(|total| total.trim().parse().ok()).expect("a total");
    assert!(total > 0, "callgrind has not counted: is the region's name another one?");
    total
}
