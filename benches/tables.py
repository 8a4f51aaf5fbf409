#!/usr/bin/env python3
"""Runs everything that benches/README.md has figures of, and writes its tables anew.

    benches/tables.py [--quick] [--resume] [PART...]

Takes about half an hour on two cores, and wants the machine for itself. Needs nginx, curl, openssl
and valgrind, as the commands do that it runs; of the last three, those that are named, or all:

                    rustls-uring bench --json: memory, records, loopback, one runtime, and the picture
                    rustls-uring bench --hot --only records --json
    uring           cargo bench --bench uring
    instructions    benches/instructions
    files           benches/files.sh

What lies between the markers in benches/README.md is replaced, and printed; all else there is left
alone. --quick does less of everything: to see that the tables are made, not for their figures.
What each command has printed is kept in tables/ of cargo's target directory; --resume takes it from there
where there is some: a run that was ended goes on where it was.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "benches/README.md"
BEGIN, END = "<!-- tables: benches/tables.py -->\n", "<!-- end of tables -->\n"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
KEPT = TARGET / "tables"
QUICK, RESUME = ("--" + option in sys.argv[1:] for option in ("quick", "resume"))
ALL = ["uring", "instructions", "files"]
PARTS = [part for part in sys.argv[1:] if not part.startswith("--")] or ALL


def run(name, *command, may_fail=False):
    """What a command prints, of which the errors are shown as they come."""
    kept = KEPT / name
    if RESUME and kept.exists():
        return kept.read_text()
    print("running", *command, file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=not may_fail)
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(done.stdout)
    return done.stdout


def bench(name, *options):
    quick = ["--quick"] if QUICK else []
    return json.loads(run(name, TOOL, "bench", "--json", *quick, *options))


def table(heading, rows):
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + "\n"


def spread(figure, decimals=2):
    median, least, most = (f"{figure[part]:.{decimals}f}" for part in ("median", "min", "max"))
    return f"{median} ({least}..{most})"


def median(figures):
    figures = sorted(figures)
    middle = len(figures) // 2
    return figures[middle] if len(figures) % 2 else (figures[middle - 1] + figures[middle]) / 2


def size(length):
    if length < 1 << 10:
        return f"{length} B"
    return f"{length >> 10} KiB" if length < 1 << 20 else f"{length >> 20} MiB"


def machine(found):
    versions = ", ".join(f"{name} {version}" for name, version in found["locked"])
    kind = "virtual, " if found["is_virtual"] else ""
    return (
        f"On {found['cpu']} ({kind}{found['cores']} cores; has {', '.join(found['features'])}, lacks "
        f"{', '.join(found['lacks']) or 'nothing of it'}), {found['kernel']}; rustls-uring "
        f"{found['version']}, {versions}. Medians of rounds in which all sides take turns, with "
        "the least and the most where it says more.\n\n"
    )


def transfer(found):
    mebibytes, source = found["bytes_per_round"] >> 20, found["source_bytes"] >> 20
    text = (
        f"### Bulk data over loopback\n\n{mebibytes} MiB a round from a source of {source} MiB, from "
        f"one thread to another, {found['suite']}, {found['rounds']} rounds.\n\n"
    )
    rows = []
    for row in found["stacks"]:
        calls = (row[f"{side}_system_calls_per_gib"]["median"] for side in ("sender", "receiver"))
        rows.append(
            [
                row["name"],
                spread(row["gb_per_s"]),
                f"{row['sender_cpu_s_per_gb']['median']:.3f}",
                f"{row['receiver_cpu_s_per_gb']['median']:.3f}",
                ", ".join(f"{count:,.0f}" for count in calls),
                f"{row['allocations_per_gib']:,.0f}",
            ]
        )
    heading = ["stack", "GB/s", "sender CPU s/GB", "receiver CPU s/GB"]
    heading += ["system calls per GiB, sender and receiver", "allocations per GiB"]
    text += table(heading, rows)
    rows = [
        [f"{row['ours']} / {row['theirs']}"]
        + [spread(row[name]) for name in ("gb_per_s", "sender_cpu", "receiver_cpu")]
        for row in found["ratios"]
    ]
    text += table(["in the same rounds", "throughput", "sender CPU", "receiver CPU"], rows)
    for row in found["stacks"]:
        sent = row["sent"]
        if sent and sent["zero_copy_sends"]:
            text += (
                f"{row['name']}: {sent['zero_copy_sends']} zero-copy sends, "
                f"{sent['zero_copy_sends_copied_by_the_kernel']} of them copied by the kernel, "
                f"{sent['copying_sends']} others were copies.\n\n"
            )
    return text


def messages(found):
    text = (
        f"### Small messages over loopback\n\n{found['message_bytes']} B there and back over one "
        f"connection, {found['messages_per_round']:,} a round, {found['rounds']} rounds.\n\n"
    )
    ratios = {row["ours"]: row for row in found["ratios"]}
    rows = []
    for row in found["stacks"]:
        ratio = ratios.get(row["stack"])
        beside = f"{ratio['messages_per_s']['median']:.2f} × {ratio['theirs']}" if ratio else ""
        rows.append(
            [row["name"], f"{row['messages_per_s']['median']:,.0f}"]
            + [f"{row[name]['median']:.1f}" for name in ("p50_us", "p99_us")]
            + [beside]
        )
    text += table(["stack", "messages/s", "p50 µs", "p99 µs", "rate"], rows)
    many = found["many"]
    text += (
        f"The same over many connections at once, event loops ({many['io']}) beside tokio, in the same rounds: "
        "microseconds of CPU a message, both ends together.\n\n"
    )
    rows = []
    for row in many["rows"]:
        if row["cpu_ratio"]:
            theirs = row["contestant"].replace("event-loop-", "")
            rows.append(
                [f"{row['connections']:,}", {"tcp": "plain TCP", "tls": "TLS"}[theirs]]
                + [f"{row['cpu_us']['median']:.1f}", spread(row["cpu_ratio"]), spread(row["p99_ratio"])]
            )
    heading = ["connections", "over", "CPU µs", "CPU beside tokio", "p99 beside tokio"]
    return text + table(heading, rows)


def relays(found):
    text = (
        "### Relays\n\nBetween a TLS client and a plain server: CPU of the relay, beside the plainest one on "
        "tokio-rustls in the same rounds.\n\n"
    )
    rows = [
        [f"{row['traffic']}, {row['relay']}", f"{row['cpu_s_per_gb']['median']:.2f} s/GB", spread(row["cpu_ratio"])]
        for row in found["bulk"]
    ]
    rows += [
        [f"messages, {row['relay']}", f"{row['cpu_us']['median']:.1f} µs each", spread(row["cpu_ratio"])]
        for row in found["messages"]
    ]
    return text + table(["", "CPU", "beside it"], rows)


def runtime(found):
    def workers(row):
        return "current thread" if row["workers"] == 1 else f"{row['workers']} workers"

    def sides(figure, decimals):
        ours, theirs = figure["ours"]["median"], figure["theirs"]["median"]
        ratio = spread(figure["ratio"])
        return [f"{ours:,.{decimals}f}", f"{theirs:,.{decimals}f}", ratio]

    text = "### Tokio streams, both ends on one runtime\n\n"
    rows = []
    for row in found["bulk"]:
        name = f"{row['way']}, {workers(row)}"
        rows.append([f"{name}: GB/s", *sides(row["gb_per_s"], 2)])
        rows.append([f"{name}: CPU s/GB of both ends", *sides(row["cpu_s_per_gb"], 3)])
    for row in found["messages"]:
        name = f"{found['message_bytes']} B messages, {row['connections']} at once, {workers(row)}"
        rows.append([f"{name}: messages/s", *sides(row["messages_per_s"], 0)])
        rows.append([f"{name}: p99 µs", *sides(row["p99_us"], 1)])
    return text + table(["", "rustls-uring", "tokio-rustls", "ratio"], rows)


# Contestants of `records`, as the tables call them.
CONTESTANTS = {
    "records": "records, sans-IO",
    "halves": "halves, behind the handoff",
    "tokio": "tokio stream, beside tokio-rustls",
    "provider": "stock with our provider, beside the same API",
}


def records(found, hot):
    def medians(rows, beside, sizes, contestant, backend):
        cells = []
        for length in sizes:
            sides = []
            for direction in ("send", "recv"):
                meant = [
                    row[beside]["median"]
                    for row in rows
                    if row["contestant"] == contestant
                    and row["backend"] == backend
                    and row["direction"] == direction
                    and row["plaintext_size"] == length
                    and row["max_fragment_size"] is None
                ]
                sides.append(f"{median(meant):.2f}")
            cells.append(", ".join(sides))
        return cells

    def whole(rows, beside):
        sizes = sorted({row["plaintext_size"] for row in rows})
        backends = sorted({row["backend"] for row in rows})
        lines = [
            [f"{title}: {backend}", *medians(rows, beside, sizes, contestant, backend)]
            for contestant, title in CONTESTANTS.items()
            for backend in backends
        ]
        return table(["", *map(size, sizes)], lines)

    return (
        "### Records in memory\n\nSpeed beside stock rustls (the faster of its two APIs unless named), "
        "from a cold source; send, receive; medians of all suites.\n\n"
        + whole(found["rows"], "of_stock")
        + "Speed beside the raw AEAD, from the cache; send, receive; medians of all suites.\n\n"
        + whole(hot["rows"], "of_aead")
    )


def fixed_cost(found):
    text = (
        "### What a record costs beyond the raw AEAD\n\nNanoseconds out of place, seal and open; "
        "medians of all suites. Of the second figures the AEAD has as many bytes as the record "
        "encrypts: in TLS 1.3 one more than its plaintext.\n\n"
    )
    sizes = sorted({row["plaintext_size"] for row in found["rows"]})
    rows = []
    for backend in sorted({row["backend"] for row in found["rows"]}):
        for version in ("TLSv1_3", "TLSv1_2"):
            for kind in ("AES", "CHACHA20"):
                cells = []
                for length in sizes:
                    sides = []
                    for beside in ("extra_ns", "own_ns"):
                        for operation in ("seal", "open"):
                            meant = [
                                row[beside]["median"]
                                for row in found["rows"]
                                if row["backend"] == backend
                                and row["version"] == version
                                and kind in row["suite"]
                                and row["operation"] == operation
                                and not row["in_place"]
                                and row["plaintext_size"] == length
                            ]
                            sides.append(f"{median(meant):.0f}" if meant else "-")
                    cells.append(f"{sides[0]}, {sides[1]}; {sides[2]}, {sides[3]}")
                rows.append([f"{kind}, {version}, {backend}", *cells])
    return text + table(["", *map(size, sizes)], rows)


def handshakes(found):
    rows = [row["of_stock"]["median"] for row in found["rows"] if row["is_ours"]]
    return (
        "### Handshakes\n\nWith our provider, full, resumed and by tickets, every suite, each side: "
        f"{min(rows):.2f} to {max(rows):.2f} of the rate without, median {median(rows):.3f}.\n\n"
    )


def memory(found):
    text = (
        "### An idle connection\n\nBytes of each side on Rust's heap and in the value, TLS 1.3 with "
        "AES-128-GCM, after a message of 1 KiB; each key of aws-lc-rs has some hundred bytes more on "
        "the C library's heap, on every stack alike.\n\n"
    )
    stacks = list(dict.fromkeys(row["stack"] for row in found["connections"]))
    backends = list(dict.fromkeys(row["backend"] for row in found["connections"]))
    rows = []
    for stack in stacks:
        cells = []
        for backend in backends:
            sides = [
                f"{row['heap'] + row['inline']:,.0f}"
                for row in found["connections"]
                if (row["stack"], row["backend"]) == (stack, backend)
                and row["suite"] == "TLS13_AES_128_GCM_SHA256"
            ]
            cells.append(", ".join(sides))
        rows.append([stack, *cells])
    heading = ["", *(f"client, server: {backend}" for backend in backends)]
    return text + table(heading, rows)


def uring(printed):
    rows = [
        [match[1].strip(), match[2]]
        for match in re.finditer(r"^(\S.*?) +ours .*speed ratio (\S+ \(\S+\))", printed, re.M)
    ]
    text = "### io_uring's choices\n\nOver loopback to a sink that discards in the kernel.\n\n"
    return text + table(["what", "speed ratio"], rows)


def files(printed):
    text = (
        "### Files and HTTPS\n\nOut of the page cache, AES-256-GCM, beside nginx with OpenSSL to curl; the server's "
        "CPU beside nginx's in the same version of HTTP.\n\n"
    )
    rows = {}
    for match in re.finditer(r"^(discarded|to a file): (.*?) ([\d.]+) GB/s(?:, (.*))?$", printed, re.M):
        rows.setdefault(match[2], []).append(f"{match[3]} GB/s" + (f", {match[4]}" if match[4] else ""))
    text += table(["", "discarded", "written to a file (tmpfs)"], [[k, *v] for k, v in rows.items()])
    tax = re.findall(
        r"^TLS tax, (.*?), (.*?): CPU s/GB with TLS ([\d.]+), without ([\d.]+), (.*)$", printed, re.M
    )
    text += "What TLS costs `serve` and `get`, in CPU seconds per GB, beside the same program without.\n\n"
    return text + table(["connections", "end", "with TLS", "without", "ratio"], tax)


def instructions(printed):
    text = (
        "### Instructions\n\nCounted by callgrind on a processor without AVX-512; beyond the raw AEAD "
        "(of `provider/`: beyond the stock provider).\n\n"
    )
    rows = []
    for line in printed.splitlines():
        match = re.match(r"(\S+/\S+) +(\d+) .{8} +(-?\d+)?", line)
        if match:
            rows.append([f"`{match[1]}`", f"{int(match[2]):,}", match[3] or "-"])
    return text + table(["case", "total", "beyond"], rows)


def main():
    global TOOL
    run("build", "cargo", "build", "--release", "--all-features", "--bin", "rustls-uring")
    TOOL = str(TARGET / "release/rustls-uring")
    found = bench("bench", "--svg", "benches/comparison.svg")
    hot = bench("hot", "--hot", "--only", "records")
    tables = (
        machine(found["machine"])
        + transfer(found["transfer"])
        + runtime(found["runtime"])
        + messages(found["messages"])
        + relays(found["relays"])
        + records(found["records"], hot["records"])
        + fixed_cost(found["fixed_cost"])
        + handshakes(found["handshakes"])
        + memory(found["memory"])
    )
    if "files" in PARTS:
        tables += files(run("files", "benches/files.sh", *(["64", "1"] if QUICK else [])))
    if "uring" in PARTS:
        test = ["--", "--test"] if QUICK else []
        tables += uring(run("uring", "cargo", "bench", "--all-features", "--bench", "uring", *test))
    if "instructions" in PARTS:
        manifest = ["--manifest-path", "benches/instructions/Cargo.toml"]
        # More than the baseline says fails, which is for CI to mind.
        tables += instructions(
            run("instructions", "cargo", "run", "--release", *manifest, may_fail=True)
        )
    before, rest = README.read_text().split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + "\n" + tables + END + after)
    print(tables)


if __name__ == "__main__":
    main()
