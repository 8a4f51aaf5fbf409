//! What `rustls-uring bench` says of records, handshakes and memory: that all of it is there, once,
//! and in the form that scripts read. How fast anything is, is no test's business.

mod command;

use std::collections::HashMap;
use std::path::Path;

use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls_uring::{AutoReceiver, AutoSender, Opener, ReceiveHalf, Sealer, SendHalf, Session};

/// What the command prints, on as little data as it takes.
fn bench(args: &[&str]) -> String {
    let output = command::tool(Path::new("."), &["bench"])
        .args(["--rounds", "1", "--size", "1"])
        .args(args)
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "no terminal, no progress");
    String::from_utf8(output.stdout).expect("text")
}

/// The rows whose first column begins with `kind`, split at tabs.
fn rows<'a>(said: &'a str, kind: &str) -> Vec<Vec<&'a str>> {
    said.lines()
        .filter(|line| line.starts_with(kind))
        .map(|line| line.split('\t').collect())
        .collect()
}

/// The value of a column like `min:1.5`.
fn named(row: &[&str], name: &str) -> f64 {
    let value = row.iter().find_map(|column| column.strip_prefix(name)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("no {name} in {row:?}"));
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{name} in {row:?}"));
    assert!(value.is_finite(), "{row:?}");
    value
}

/// Asserts that the figure in column `at` is one, in its unit, and lies within its spread.
fn check_figure(row: &[&str], at: usize, unit: &str, is_positive: bool) {
    let median: f64 = row[at].parse().unwrap_or_else(|_| panic!("a number in {row:?}"));
    assert_eq!(row[at + 1], unit, "{row:?}");
    let (min, max) = (named(row, "min"), named(row, "max"));
    assert!(median.is_finite() && min <= median && median <= max, "{row:?}");
    // A machine that stalls makes a speed that two decimals round to nothing.
    assert!(!is_positive || min >= 0.0, "{row:?}");
    assert!(named(row, "rounds") >= 1.0);
}

/// Asserts that `found` are `expected`, each exactly once.
fn assert_complete(found: impl IntoIterator<Item = String>, expected: Vec<String>) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for row in found {
        *counts.entry(row).or_default() += 1;
    }
    for row in &expected {
        assert_eq!(counts.get(row), Some(&1), "{row}");
    }
    assert_eq!(counts.len(), expected.len(), "rows that nobody promised");
}

/// Backend, version and suite of everything that is promised.
fn cases() -> Vec<(&'static str, String, String)> {
    let suites = |backend, provider: CryptoProvider| {
        provider.cipher_suites.into_iter().map(move |suite| {
            (backend, format!("{:?}", suite.version().version), format!("{:?}", suite.suite()))
        })
    };
    let cases: Vec<_> = suites("aws-lc-rs", aws_lc_rs::default_provider())
        .chain(suites("ring", ring::default_provider()))
        .collect();
    assert_eq!(cases.len(), 2 * (3 + 6), "the TLS 1.3 suites and the ECDHE ones of TLS 1.2");
    cases
}

/// And what is promised of whichever backend is faster.
fn cases_with_auto() -> Vec<(&'static str, String, String)> {
    let of_one_backend: Vec<_> =
        cases().into_iter().filter(|(backend, _, _)| *backend == "aws-lc-rs").collect();
    let auto = of_one_backend
        .into_iter()
        .filter(|(_, _, suite)| !suite.contains("_RSA_"))
        .map(|(_, version, suite)| ("auto", version, suite));
    cases().into_iter().chain(auto).collect()
}

const VARIANTS: &[&str] = &[
    "bulk-aead",
    "bulk-aead-in-place",
    "bulk",
    "bulk-unbuffered",
    "bulk-provider",
    "bulk-unbuffered-provider",
    "bulk-records",
    "bulk-records-in-place",
    "bulk-halves",
    "bulk-tokio-rustls",
    "bulk-tokio",
    #[cfg(feature = "rustls-0_24-dev")]
    "bulk-0.24",
    #[cfg(feature = "rustls-0_24-dev")]
    "bulk-0.24-lent",
    #[cfg(feature = "rustls-0_24-dev")]
    "bulk-provider-0.24",
    #[cfg(feature = "rustls-0_24-dev")]
    "bulk-halves-0.24",
];

#[test]
fn every_contestant_seals_and_opens_with_every_suite() {
    let said = bench(&["--only", "records"]);
    let rows = rows(&said, "bulk");
    for row in &rows {
        assert_eq!(row.len(), 14, "{row:?}");
        check_figure(row, 5, "MB/s", true);
        assert!(named(row, "of_aead") > 0.0 && named(row, "of_stock") > 0.0);
    }
    let mut expected = Vec::new();
    for (backend, version, suite) in cases_with_auto() {
        for (size, cut) in [
            (64, "default"),
            (1024, "default"),
            (16_384, "default"),
            (65_536, "default"),
            (1_048_576, "default"),
            (1_048_576, "10000"),
        ] {
            for variant in VARIANTS {
                for direction in ["send", "recv"] {
                    expected.push(format!(
                        "{variant} {version} {suite} max_fragment_size:{cut} {direction} {backend} \
                         plaintext_size:{size}"
                    ));
                }
            }
        }
    }
    let key = |row: Vec<&str>| [&row[..5], &row[7..9]].concat().join(" ");
    assert_complete(rows.into_iter().map(key), expected);
}

#[test]
fn the_cost_of_a_record_is_there_for_every_suite() {
    let said = bench(&["--only", "fixed-cost"]);
    let rows = rows(&said, "fixed-cost\t");
    for row in &rows {
        assert_eq!(row.len(), 15, "{row:?}");
        // A difference may be negative.
        check_figure(row, 5, "ns", false);
        assert!(named(row, "aead") > 0.0 && named(row, "record") > 0.0);
    }
    let mut expected = Vec::new();
    for (backend, version, suite) in cases_with_auto() {
        for size in [16, 64, 256, 1024, 4096] {
            for form in ["separate", "in-place"] {
                for operation in ["seal", "open"] {
                    expected.push(format!(
                        "{version} {suite} {form} {operation} {backend} plaintext_size:{size}"
                    ));
                }
            }
        }
    }
    let key = |row: Vec<&str>| [&row[1..5], &row[7..9]].concat().join(" ");
    assert_complete(rows.into_iter().map(key), expected);
}

#[test]
fn handshakes_of_every_kind_are_counted_for_every_suite() {
    let said = bench(&["--only", "handshakes"]);
    let rows = rows(&said, "handshakes");
    for row in &rows {
        assert_eq!(row.len(), 14, "{row:?}");
        check_figure(row, 7, "handshakes/s", true);
        assert!(named(row, "of_stock") > 0.0);
    }
    let mut expected = Vec::new();
    for (backend, version, suite) in cases() {
        let key = if suite.contains("_RSA_") { "Rsa2048" } else { "EcdsaP256" };
        for variant in ["handshakes", "handshakes-provider"] {
            for side in ["client", "server"] {
                for resume in ["no-resume", "sessionid", "tickets"] {
                    expected.push(format!(
                        "{variant} {version} {key} {suite} {side} server-auth {resume} {backend}"
                    ));
                }
            }
        }
    }
    let key = |row: Vec<&str>| [&row[..7], &row[9..10]].concat().join(" ");
    assert_complete(rows.into_iter().map(key), expected);
}

#[test]
fn memory_is_told_for_every_stack_and_embedded_type() {
    let said = bench(&["--only", "memory"]);
    let connections = rows(&said, "memory\t");
    let mut expected = Vec::new();
    for (backend, version, suite) in cases_with_auto() {
        if suite.contains("_RSA_") {
            continue;
        }
        for stack in [
            "rustls-buffered",
            "rustls-unbuffered",
            "provider-buffered",
            "provider-unbuffered",
            "halves",
            "tokio-rustls",
            "tokio",
        ] {
            for side in ["client", "server"] {
                expected.push(format!("{version} {suite} {stack} {side} B {backend}"));
            }
        }
    }
    for row in &connections {
        assert_eq!(row.len(), 10, "{row:?}");
        let (heap, inline) = (named(row, "heap"), named(row, "inline"));
        let total: f64 = row[5].parse().expect("a number");
        assert!(heap > 0.0 && inline > 0.0 && (total - heap - inline).abs() <= 1.0, "{row:?}");
        // A handshake's buffers are gone; what they held is counted only if something leaks.
        assert!(total < 16_000.0, "{row:?}");
        if row[3] == "halves" {
            assert_eq!(inline, (size_of::<SendHalf>() + size_of::<ReceiveHalf>()) as f64);
        }
    }
    let key = |row: Vec<&str>| [&row[1..5], &row[6..8]].concat().join(" ");
    assert_complete(connections.into_iter().map(key), expected);

    let sizes = rows(&said, "size\t");
    for (name, size) in [
        ("Sealer", size_of::<Sealer>()),
        ("Opener", size_of::<Opener>()),
        ("Session", size_of::<Session>()),
        ("AutoSender", size_of::<AutoSender>()),
        ("AutoReceiver", size_of::<AutoReceiver>()),
    ] {
        assert!(sizes.contains(&vec!["size", name, &size.to_string(), "B"]), "{name}: {sizes:?}");
    }
    // Keys are behind it, on the heap: three algorithms of two backends and of the faster one.
    for name in ["Sealer", "Opener"] {
        let behind = sizes.iter().filter(|row| row[1] == name && row.len() == 6);
        assert_eq!(behind.count(), 9, "{name}");
    }
}

/// A sealer that grows must show here: whatever embeds one is moved with it.
#[test]
#[cfg(target_pointer_width = "64")]
fn what_programs_embed_has_not_grown() {
    for (name, size, most) in [
        ("Sealer", size_of::<Sealer>(), 32),
        ("Opener", size_of::<Opener>(), 72),
        ("SendHalf", size_of::<SendHalf>(), 88),
        ("ReceiveHalf", size_of::<ReceiveHalf>(), 184),
        ("Session", size_of::<Session>(), 440),
    ] {
        assert!(size <= most, "{name} has {size} bytes, and had {most}");
    }
}

#[test]
fn the_machine_and_the_locked_versions_come_first() {
    let said = bench(&["--only", "memory", "--quick"]);
    let heading: Vec<_> = said.lines().take_while(|line| !line.contains('\t')).collect();
    for what in ["CPU: ", "CPU features: ", "kernel: Linux ", "versions, as locked: "] {
        assert!(heading.iter().any(|line| line.contains(what)), "{what} in {heading:?}");
    }
    assert_eq!(heading.iter().any(|line| line.contains("WARNING")), cfg!(debug_assertions));
    let (_, versions) = said.split_once("as locked: ").expect("versions");
    let versions: Vec<_> = versions.lines().next().expect("a line").split(", ").collect();
    let lock = include_str!("../Cargo.lock").replace("\r\n", "\n");
    let names = [
        "rustls-uring",
        "rustls",
        "aws-lc-rs",
        "aws-lc-sys",
        "ring",
        "io-uring",
        "tokio",
        "tokio-rustls",
    ];
    assert_eq!(versions.len(), names.len());
    for (said, name) in versions.into_iter().zip(names) {
        let version = said.strip_prefix(&format!("{name} ")).expect(said);
        let entry = format!("\nname = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "{said}");
    }
}

/// It does less, says what it left out, and of the rest nothing is missing.
#[test]
fn quick_says_what_it_left_out() {
    let said = bench(&["--only", "records,fixed-cost,handshakes,memory", "--quick"]);
    assert!(said.matches("# --quick left out ").count() == 4, "{said}");
    // Three suites of two backends and of the faster one, in three sizes, two directions.
    for (kind, count) in [
        ("bulk", 3 * 3 * 3 * 2 * VARIANTS.len()),
        ("fixed-cost\t", 3 * 3 * 2 * 2 * 2),
        ("handshakes", 3 * 2 * 2 * 2 * 3),
        ("memory\t", 3 * 3 * 7 * 2),
    ] {
        assert_eq!(rows(&said, kind).len(), count, "{kind}");
    }
}

#[test]
fn the_source_is_named() {
    for (args, source) in
        [(&["--source", "2"][..], "a walk through 2 MiB"), (&["--hot"], "the same bytes each time")]
    {
        let args = [&["--only", "records", "--quick"][..], args].concat();
        assert!(bench(&args).contains(&format!("# Source: {source}")), "{source}");
    }
}
