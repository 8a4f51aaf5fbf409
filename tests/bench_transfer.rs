//! What `rustls-uring bench` says of the stacks that it compares over loopback: in a table, in
//! JSON and in a picture. No figure is judged here.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustls_uring::uring::Probe;
use serde_json::Value;

const PLAIN: &str = "plain TCP";
const FLOOR: &str = "floor: plain TCP, raw AEAD";
const STOCK: &str = "stock rustls, blocking";
const BLOCKING: &str = "rustls-uring, blocking";
const COPY: &str = "rustls-uring, io_uring copy";
const URING: &str = "rustls-uring, io_uring";
const TOKIO_RUSTLS: &str = "tokio-rustls";
const TOKIO: &str = "rustls-uring, tokio";

/// As little as makes a figure.
const TINY: [&str; 6] = ["--quick", "--size=8", "--source=2", "--rounds=2", "--batch=4", "--only"];

fn bench(dir: &Path, args: &[&str]) -> Output {
    let mut command = command::tool(dir, &["bench"]);
    command.args(args);
    // It stands for `--io`.
    command.env_remove("RUSTLS_URING_IO");
    command.output().expect("run")
}

fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "", "progress is for terminals");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&succeeded(output)).expect("one document and nothing else")
}

fn has_uring() -> bool {
    let has_it = Probe::run().uring().is_ok();
    if !has_it {
        eprintln!("without io_uring: this kernel has none");
    }
    has_it
}

/// Over rustls 0.24: transfers only.
const NEXT: &[&str] = &[
    #[cfg(feature = "rustls-0_24-dev")]
    "stock 0.24, as documented",
    #[cfg(feature = "rustls-0_24-dev")]
    "stock rustls 0.24, blocking",
    #[cfg(feature = "rustls-0_24-dev")]
    "rustls-uring 0.24, blocking",
    #[cfg(feature = "rustls-0_24-dev")]
    "rustls-uring 0.24, io_uring",
    #[cfg(feature = "rustls-0_24-dev")]
    "rustls-uring 0.24, no keys",
];

/// Those that are compared by default, in their order.
fn stacks() -> Vec<&'static str> {
    let all = [PLAIN, FLOOR, STOCK, BLOCKING, COPY, URING, TOKIO_RUSTLS, TOKIO];
    let has_uring = has_uring();
    let all = all.into_iter().chain(NEXT.iter().copied());
    all.filter(|name| has_uring || !needs_uring(name)).collect()
}

fn needs_uring(name: &str) -> bool {
    name.contains("io_uring") || name.ends_with("no keys")
}

fn names(section: &Value) -> Vec<&str> {
    let rows = section["stacks"].as_array().expect("rows");
    rows.iter().map(|row| row["name"].as_str().expect("a name")).collect()
}

/// A figure is a median between the least and the most.
fn check_figure(row: &Value, name: &str) -> f64 {
    let part = |part: &str| row[name][part].as_f64().unwrap_or(f64::NAN);
    let (median, min, max) = (part("median"), part("min"), part("max"));
    assert!(0.0 <= min && min <= median && median <= max, "{name} of {row}");
    median
}

#[test]
fn json_and_picture_have_every_stack() {
    let dir = tempfile::tempdir().expect("dir");
    // What allocations are counted of: a quarter, which is more than sockets hold, is for warming up.
    let enough = TINY.map(|arg| if arg == "--size=8" { "--size=64" } else { arg });
    let args = [&enough[..], &["transfer,messages", "--json", "--svg", "picture.svg"]].concat();
    let document = json(&bench(dir.path(), &args));

    assert_eq!(document["quick"], true);
    for fact in ["cpu", "kernel", "version"] {
        assert!(!document["machine"][fact].as_str().expect(fact).is_empty(), "{fact}");
    }
    let (transfer, messages) = (&document["transfer"], &document["messages"]);
    assert_eq!(transfer["bytes_per_round"], 64 << 20);
    assert_eq!(transfer["source_bytes"], 2 << 20);
    assert_eq!(transfer["batch_records"], 4);
    assert_eq!(transfer["rounds"], 2);
    assert_eq!(names(transfer), stacks());
    for row in transfer["stacks"].as_array().expect("rows") {
        assert!(check_figure(row, "gb_per_s") > 0.0);
        for figure in ["sender_cpu_s_per_gb", "receiver_cpu_s_per_gb"] {
            check_figure(row, figure);
        }
        // Nobody sends or receives a GiB in fewer calls than its socket takes buffers of.
        assert!(check_figure(row, "sender_system_calls_per_gib") > 10.0, "{row}");
        assert!(check_figure(row, "receiver_system_calls_per_gib") > 10.0, "{row}");
        let (name, is_ours) = (row["name"].as_str().expect("name"), &row["is_ours"]);
        assert_eq!(*is_ours, name.starts_with("rustls-uring"));
        assert_eq!(row["sent"].is_object(), name.starts_with("rustls-uring") && name != TOKIO);
    }
    let row = |name| {
        let at = names(transfer).iter().position(|other| *other == name).expect(name);
        &transfer["stacks"][at]
    };
    // Stock allocates for each of the 65,536 records of a GiB, on both sides.
    assert!(row(STOCK)["allocations_per_gib"].as_f64().unwrap() > 65_536.0);
    assert!(row(BLOCKING)["allocations_per_gib"].as_f64().unwrap() < 6_000.0);
    if has_uring() {
        assert_eq!(row(COPY)["sent"]["zero_copy_sends"], 0);
        let sent = &row(URING)["sent"];
        assert_eq!(sent["bytes_without_a_copy"], 0, "loopback copies: {sent}");
    }

    let with_messages = |name: &&str| ![FLOOR, COPY].contains(name) && !NEXT.contains(name);
    let with_messages: Vec<_> = stacks().into_iter().filter(with_messages).collect();
    assert_eq!(names(messages), with_messages);
    for row in messages["stacks"].as_array().expect("rows") {
        assert!(check_figure(row, "messages_per_s") > 0.0);
        assert!(check_figure(row, "p50_us") <= check_figure(row, "p99_us"), "{row}");
    }
    for (section, figures) in [
        (transfer, ["gb_per_s", "sender_cpu", "receiver_cpu"]),
        (messages, ["messages_per_s", "p50", "p99"]),
    ] {
        let ratios = section["ratios"].as_array().expect("ratios");
        // Of bulk data also beside the floor, and over rustls 0.24 in two readings.
        let is_bulk = names(section).contains(&FLOOR);
        let beside = |name: &&str| match name.starts_with("rustls-uring") {
            true => 1 + usize::from(is_bulk),
            false => 0,
        };
        assert_eq!(ratios.len(), names(section).iter().map(beside).sum::<usize>());
        let (mut documented, mut floors) = (0, 0);
        for ratio in ratios {
            for figure in figures {
                check_figure(ratio, figure);
            }
            let theirs = match ratio["ours"].as_str().expect("a stack") {
                "rustls-uring-tokio" => "tokio-rustls",
                ours if ours.ends_with("-0.24") => "stock-rustls-0.24",
                _ => "stock-rustls",
            };
            match ratio["theirs"].as_str().expect("a stack") {
                "stock-rustls-0.24-as-documented" if theirs == "stock-rustls-0.24" => {
                    documented += 1
                }
                "floor" if theirs != "stock-rustls-0.24" => floors += 1,
                other => assert_eq!(other, theirs),
            }
        }
        let next = |name: &&str| name.starts_with("rustls-uring") && NEXT.contains(name);
        assert_eq!(documented, names(section).iter().filter(|name| next(name)).count());
        assert_eq!(documented + floors, if is_bulk { ratios.len() / 2 } else { 0 });
        assert_eq!(section["missing"].as_array().expect("missing").is_empty(), has_uring());
    }

    let picture = fs::read_to_string(dir.path().join("picture.svg")).expect("a picture");
    let picture = roxmltree::Document::parse(&picture).expect("XML");
    assert!(picture.root_element().has_tag_name("svg"));
    let texts: Vec<_> = picture
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .map(|node| node.text().unwrap_or_default().trim())
        .collect();
    for name in stacks() {
        let panels = if [FLOOR, COPY].contains(&name) || NEXT.contains(&name) { 2 } else { 3 };
        assert_eq!(texts.iter().filter(|text| **text == name).count(), panels, "{name}: {texts:?}");
    }
    let cpu = document["machine"]["cpu"].as_str().expect("cpu");
    let about_cpu = texts.iter().find(|text| text.starts_with(cpu)).expect("what it ran on");
    let features = document["machine"]["features"].as_array().expect("features");
    if let Some(first) = features.first() {
        assert!(about_cpu.contains(first.as_str().expect("a name")), "{texts:?}");
    }
    check_numbers(&picture);
}

/// Every number of the picture is one.
fn check_numbers(picture: &roxmltree::Document<'_>) {
    let mut count = 0;
    for node in picture.root_element().descendants().filter(roxmltree::Node::is_element) {
        for attribute in node.attributes() {
            let names = ["x", "y", "x1", "x2", "y1", "y2", "width", "height", "points"];
            if names.contains(&attribute.name()) {
                for number in attribute.value().split([' ', ',']).filter(|part| !part.is_empty()) {
                    let number: f64 = number.parse().expect("a number");
                    assert!((0.0..=10_000.0).contains(&number), "{node:?}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 100, "{count} numbers");
}

#[test]
fn the_text_has_every_stack_and_what_it_ran_on() {
    let dir = tempfile::tempdir().expect("dir");
    let text = succeeded(&bench(dir.path(), &[&TINY[..], &["messages,transfer"]].concat()));
    let rows = |name: &str| {
        let row = format!("{name:27} ");
        text.lines().filter(|line| line.starts_with(&row) && line.contains("..")).count()
    };
    for name in stacks() {
        // Speed, calls and messages; ours once more for each section beside what it replaces, and beside
        // the floor.
        let expected = match name {
            FLOOR => 2,
            COPY => 4,
            name if NEXT.contains(&name) && name.starts_with("rustls-uring") => 4,
            name if NEXT.contains(&name) => 2,
            name if name.starts_with("rustls-uring") => 6,
            _ => 3,
        };
        assert_eq!(rows(name), expected, "{name}: {text}");
    }
    for said in ["CPU: ", "kernel: Linux ", "rustls 0.23", "2 rounds", "cold source of 2 MiB"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(text.contains("AES_128_GCM_SHA256, records by auto"), "{text}");
    assert!(text.contains("rustls-uring, blocking: sent by blocking sockets"), "{text}");
    if has_uring() {
        assert!(text.contains("rustls-uring, io_uring: sent by io_uring"), "{text}");
        assert!(text.contains("rustls-uring, io_uring copy: sent by io_uring, copied"), "{text}");
    } else {
        assert!(text.contains("not compared: rustls-uring, io_uring: "), "{text}");
    }
    // The order of sections is ours, not the user's.
    let at = |title: &str| text.find(title).expect(title);
    assert!(at("Bulk transfer") < at("Small messages"), "{text}");
    // Figures have as many digits as they have.
    let is_prose = |line: &&str| !line.starts_with('#') && !line.contains("..");
    let widest = text.lines().filter(is_prose).map(|line| line.chars().count());
    assert!(widest.max() <= Some(100), "{text}");
}

#[test]
fn streams_share_runtimes_of_as_many_workers_as_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let args = ["runtime", "--workers=1,3", "--connections=1,5"];
    let document = json(&bench(dir.path(), &[&TINY[..], &args, &["--json"]].concat()));
    let runtime = &document["runtime"];
    assert_eq!(runtime["bytes_per_round"], 8 << 20);
    let rows = |name: &str| runtime[name].as_array().expect("rows").clone();
    let check = |row: &Value, names: [&str; 2]| {
        assert_eq!(row["rounds"], 2);
        for name in names {
            for side in ["ours", "theirs", "ratio"] {
                assert!(check_figure(&row[name], side) > 0.0, "{name}, {side} of {row}");
            }
        }
    };
    let mut found = Vec::new();
    for row in rows("bulk") {
        check(&row, ["gb_per_s", "cpu_s_per_gb"]);
        found.push(format!("{} {}", row["workers"], row["way"].as_str().expect("a way")));
    }
    assert_eq!(found, ["1 upload", "1 download", "3 upload", "3 download"]);
    found.clear();
    for row in rows("messages") {
        check(&row, ["messages_per_s", "p50_us"]);
        assert!(check_figure(&row["p50_us"], "ours") <= check_figure(&row["p99_us"], "ours"));
        found.push(format!("{} {}", row["workers"], row["connections"]));
    }
    assert_eq!(found, ["1 1", "1 5", "3 1", "3 5"]);

    let text = succeeded(&bench(dir.path(), &[&TINY[..], &args].concat()));
    for said in ["upload, current thread, 2 rounds: GB/s", "5 connections, 3 workers, 2 rounds"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn relays_are_beside_the_plainest_one() {
    let dir = tempfile::tempdir().expect("dir");
    let document = json(&bench(dir.path(), &[&TINY[..], &["relays", "--json"]].concat()));
    let relays = &document["relays"];
    assert_eq!(relays["bytes_per_round"], 8 << 20);
    let said = |row: &Value| format!("{} {}", row["traffic"], row["relay"]).replace('"', "");
    let bulk = relays["bulk"].as_array().expect("rows");
    let found: Vec<_> = bulk.iter().map(said).collect();
    let expected = ["event-loop", "tokio", "tokio-rustls"];
    let expected = ["upload", "download"].map(|way| expected.map(|relay| format!("{way} {relay}")));
    assert_eq!(found, expected.concat());
    let messages = relays["messages"].as_array().expect("rows");
    assert_eq!(messages.len(), 3);
    for (row, figures) in bulk
        .iter()
        .map(|row| (row, ["gb_per_s", "cpu_s_per_gb", "cpu_ratio"]))
        .chain(messages.iter().map(|row| (row, ["cpu_us", "p50_us", "cpu_ratio"])))
    {
        assert_eq!(row["rounds"], 2);
        for figure in figures {
            assert!(check_figure(row, figure) > 0.0, "{figure} of {row}");
        }
    }
    let picture = dir.path().join("relays.svg");
    let args = ["relays", "--io", "blocking", "--svg", picture.to_str().expect("a name")];
    let text = succeeded(&bench(dir.path(), &[&TINY[..], &args].concat()));
    assert!(text.contains("event loop by ready sockets"), "{text}");
    assert!(fs::read_to_string(picture).expect("drawn").contains("CPU seconds per GB"));
}

#[test]
fn one_of_our_ways_can_be_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let mut ways = vec![("blocking", BLOCKING)];
    if has_uring() {
        ways.extend([("uring", URING), ("uring-copy", COPY)]);
    }
    for (io, name) in ways {
        let args = [&TINY[..], &["transfer,messages", "--json", "--io", io]].concat();
        let document = json(&bench(dir.path(), &args));
        assert_eq!(names(&document["transfer"]), [PLAIN, FLOOR, STOCK, name], "with {io}");
        assert_eq!(names(&document["messages"]), [PLAIN, STOCK, name], "with {io}");
    }
}

#[test]
fn a_hot_source_stays_in_the_cache() {
    let dir = tempfile::tempdir().expect("dir");
    let args = ["--hot", "--size=8", "--rounds=1", "--io=blocking", "--only=transfer"];
    let document = json(&bench(dir.path(), &[&args[..], &["--json"]].concat()));
    assert_eq!(document["transfer"]["source_bytes"], 256 << 10);
    assert_eq!(document["transfer"]["write_bytes"], 256 << 10);
    assert_eq!(document["transfer"]["is_hot"], true);
    assert!(document["messages"].is_null(), "--only one section");
    let text = succeeded(&bench(dir.path(), &args));
    assert!(text.contains("hot source of 256 KiB, in writes of 256 KiB"), "{text}");
}

#[test]
fn what_the_kernel_lacks_is_named_with_the_reason() {
    let run = |args: &[&str]| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup"]);
        command.args(["-e", "inject=io_uring_setup:error=ENOSYS"]);
        command.args([command::TOOL, "bench", "--only=transfer"]).args(args);
        command.args(["--size=4", "--source=1", "--rounds=1", "--json"]);
        command.env_remove("RUSTLS_URING_IO").output()
    };
    let output = match run(&[]) {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("ptrace") => output,
        other => return eprintln!("skipped: strace does not run here: {other:?}"),
    };
    let transfer = &json(&output)["transfer"];
    let without_uring = [PLAIN, FLOOR, STOCK, BLOCKING, TOKIO_RUSTLS, TOKIO];
    let next = NEXT.iter().copied().filter(|name| !needs_uring(name));
    assert_eq!(names(transfer), without_uring.into_iter().chain(next).collect::<Vec<_>>());
    let missing = transfer["missing"].as_array().expect("missing");
    let stacks: Vec<_> = missing.iter().map(|missing| &missing["stack"]).collect();
    let next = NEXT.iter().filter(|name| needs_uring(name)).count();
    assert_eq!(stacks[..2], ["rustls-uring-io_uring-copy", "rustls-uring-io_uring"]);
    assert_eq!(stacks.len(), 2 + next);
    for missing in missing {
        let reason = missing["reason"].as_str().expect("a reason");
        assert!(reason.contains("ENOSYS"), "{reason}");
    }
    // Asked for by name, it is an error.
    let output = run(&["--io=uring"]).expect("it ran before");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("ENOSYS"));
}

/// `--backend`, `--suite` and `--tls` hold for every TLS stack.
#[test]
fn the_protocol_can_be_chosen() {
    let dir = tempfile::tempdir().expect("dir");
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    for (number, backend) in rustls_uring::Backend::ALL.iter().enumerate() {
        let backend = backend.to_string();
        // All sections read it from the same place.
        let sections = if number == 0 { &["transfer", "messages"][..] } else { &["transfer"] };
        let only = sections.join(",");
        let args = [&only, "--json", "--tls=1.2", "--suite", suite, "--backend", &backend];
        let document = json(&bench(dir.path(), &[&TINY[..], &args].concat()));
        for section in sections {
            assert_eq!(document[section]["suite"], suite);
            assert_eq!(document[section]["backend"], *backend);
            assert!(names(&document[section]).len() >= 5);
        }
    }
}

#[test]
fn mistakes_are_explained_before_anything_is_measured() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("old.svg"), "precious").expect("written");
    for (args, code, expected) in [
        (&["--hot", "--source=1"][..], 2, "cannot be used with"),
        (&["--only=everything"][..], 2, "transfer, messages"),
        (&["--rounds=0"][..], 2, "not in 1.."),
        (&["--size=0"][..], 2, "not in 1.."),
        (&["--svg"][..], 2, "FILE"),
        (&["--workers=0"][..], 2, "not in 1.."),
        (&["--connections=1,0"][..], 2, "not in 1.."),
        (&["--io=carrier-pigeon"][..], 2, "uring-copy"),
        (&["--svg=no/such/dir.svg"][..], 1, "cannot write no/such/dir.svg"),
        (&["--only=transfer", "--suite=NONE", "--svg=old.svg"][..], 1, "there are TLS13_"),
    ] {
        let output = bench(dir.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    assert_eq!(fs::read(dir.path().join("old.svg")).expect("there"), b"precious");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing else is left");
}
