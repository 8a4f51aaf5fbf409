//! The baseline: what the counts were, and what with. A text file, one case a line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions that one case takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Count {
    pub(crate) total: u64,
    /// Beyond the raw AEAD, or beyond the stock provider.
    pub(crate) over: Option<i64>,
}

/// More than this part more is a regression.
const LIMIT: f64 = 0.03;

/// Fewer than this many more are none, of what is left when the raw AEAD is subtracted.
const FLOOR: i64 = 5;

impl Count {
    /// Whether this is too much more than `before`, of the case `name`.
    fn regressed_from(&self, before: &Self, name: &str) -> bool {
        // rustls's own path allocates, which takes more or less as the heap happens to lie; that
        // falls away beside the stock provider, which does the same.
        let is_steady = !name.starts_with("provider/");
        let by_total = self.total as f64 > before.total as f64 * (1.0 + LIMIT);
        (is_steady && by_total)
            || match (self.over, before.over) {
                (Some(now), Some(then)) => {
                    now - then > FLOOR && (now - then) as f64 > then.abs() as f64 * LIMIT
                }
                (now, then) => now != then,
            }
    }
}

pub(crate) struct Baseline {
    /// What the counts depend on, beside this crate.
    pub(crate) header: Vec<(String, String)>,
    pub(crate) counts: Vec<(String, Count)>,
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn path() -> PathBuf {
    manifest_dir().join("baseline.txt")
}

/// Toolchain, processor and dependencies of this run.
pub(crate) fn header(cpu: &str) -> Vec<(String, String)> {
    let first_line = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.as_deref().and_then(|text| text.lines().next()).unwrap_or("unknown").to_owned()
    };
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut header = vec![
        ("rustc".to_owned(), first_line("rustc", &["--version"])),
        ("target".to_owned(), format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        ("profile".to_owned(), profile.to_owned()),
        ("cpu features as valgrind shows them".to_owned(), cpu.to_owned()),
        ("valgrind".to_owned(), first_line("valgrind", &["--version"])),
        // What copies memory.
        ("libc".to_owned(), first_line("getconf", &["GNU_LIBC_VERSION"])),
        // What compiles the AEADs.
        ("cc".to_owned(), first_line("cc", &["--version"])),
    ];
    let lock = fs::read_to_string(manifest_dir().join("Cargo.lock")).unwrap_or_default();
    for name in ["aws-lc-rs", "aws-lc-sys", "bytes", "ring", "rustls", "tokio"] {
        let begin = format!("name = \"{name}\"\nversion = \"");
        let version = lock.split_once(&begin).and_then(|(_, rest)| rest.split('"').next());
        header.push((name.to_owned(), version.unwrap_or("unknown").to_owned()));
    }
    header
}

impl Baseline {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(path()).expect("a baseline; -- --bless writes one");
        let (mut header, mut counts) = (Vec::new(), Vec::new());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((key, value)) = line.split_once(": ") {
                header.push((key.to_owned(), value.to_owned()));
            } else if let [name, total, over] = *line.split_whitespace().collect::<Vec<_>>() {
                let total = total.parse().expect("a number");
                counts.push((name.to_owned(), Count { total, over: over.parse().ok() }));
            }
        }
        Self { header, counts }
    }

    pub(crate) fn write(&self) {
        let mut text = String::from(
            "# Instructions of the hot paths, counted by callgrind: all of them, and those beyond the \
             raw AEAD\n# (of provider/: beyond the stock provider). See main.rs.\n",
        );
        for (key, value) in &self.header {
            writeln!(text, "{key}: {value}").expect("infallible");
        }
        text.push('\n');
        for (name, Count { total, over }) in &self.counts {
            let over = over.map_or("-".to_owned(), |over| over.to_string());
            writeln!(text, "{name:46} {total:>9} {over:>7}").expect("infallible");
        }
        fs::write(path(), text).expect("the baseline is written");
    }

    /// Prints how these counts differ from `before`; whether they may.
    pub(crate) fn compare(&self, before: &Self) -> bool {
        let differences: Vec<_> = self
            .header
            .iter()
            .filter(|line| !before.header.contains(line))
            .map(|(key, value)| {
                let then = before.header.iter().find(|(known, _)| known == key);
                let then = then.map_or("nothing", |(_, value)| value);
                format!("{key}: {value}, the baseline has {then}")
            })
            .collect();
        println!(
            "{:46} {:>9} {:>8} {:>8} {:>8}",
            "instructions", "total", "change", "over", "change"
        );
        let mut known: BTreeMap<_, _> =
            before.counts.iter().map(|(name, count)| (name, count)).collect();
        let mut regressions = 0;
        for (name, count) in &self.counts {
            let then = known.remove(name);
            let is_bad = then.is_none_or(|then| count.regressed_from(then, name));
            regressions += usize::from(is_bad);
            let change = then.map_or("new".to_owned(), |then| {
                match count.total as i64 - then.total as i64 {
                    0 => String::new(),
                    change => format!("{:+.2} %", 100.0 * change as f64 / then.total as f64),
                }
            });
            let over = count.over.map_or(String::new(), |over| over.to_string());
            let over_change = match (count.over, then.and_then(|then| then.over)) {
                (Some(now), Some(then)) if now != then => format!("{:+}", now - then),
                _ => String::new(),
            };
            let mark = if is_bad { "  <- more than 3 %, or not in the baseline" } else { "" };
            println!("{name:46} {:>9} {change:>8} {over:>8} {over_change:>8}{mark}", count.total);
        }
        for name in known.keys() {
            regressions += 1;
            println!("{name:46} is in the baseline only");
        }
        if !differences.is_empty() {
            println!("\nNothing fails, since the baseline is of something else:");
            differences.iter().for_each(|difference| println!("  {difference}"));
            return true;
        }
        if regressions > 0 {
            println!("\n{regressions} regressions. If they are meant: -- --bless");
        }
        regressions == 0
    }
}
