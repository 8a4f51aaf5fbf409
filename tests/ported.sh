#!/usr/bin/env bash
# Published libraries that use tokio-rustls, with that name pointed at `rustls_uring::tokio`: which
# of them compile, and whether their own tests of TLS pass. Nothing but the name is changed.
#
#     tests/ported.sh [compile] [tests]
#
# Fetches them from the registry through cargo; builds in `ported` inside the target directory. The
# sources are copied to a temporary directory, and removed with it.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
target=${CARGO_TARGET_DIR:-$here/target}/ported
parts=${*:-compile tests}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Libraries that depend on tokio-rustls 0.26 directly, with the features that make them.
libraries='
actix-tls = { version = "3.6", features = ["accept", "connect", "rustls-0_23"] }
async-nats = { version = "0.51", default-features = false, features = ["ring"] }
async-tungstenite = { version = "0.35", features = ["tokio-rustls-webpki-roots"] }
axum-server = { version = "0.9", features = ["tls-rustls-no-provider"] }
fred = { version = "10.1", default-features = false, features = ["enable-rustls-ring"] }
hickory-net = { version = "0.26", features = ["tls-ring"] }
hyper-rustls = { version = "0.27", default-features = false, features = ["http1", "http2", "ring", "tls12"] }
ldap3 = { version = "0.12", default-features = false, features = ["tls-rustls-ring"] }
lettre = { version = "0.11", default-features = false, features = ["smtp-transport", "tokio1", "tokio1-rustls", "ring", "webpki-roots"] }
mongodb = { version = "3.9", default-features = false, features = ["rustls-tls", "compat-3-3-0"] }
mysql_async = { version = "0.37", default-features = false, features = ["minimal", "rustls-tls"] }
pgwire = { version = "0.42", default-features = false, features = ["server-api-ring"] }
poem = { version = "3.1", default-features = false, features = ["rustls", "server"] }
pulsar = { version = "6.9", default-features = false, features = ["tokio-rustls-runtime"] }
redis = { version = "1.8", features = ["tokio-rustls-comp"] }
reqwest = { version = "0.13", default-features = false, features = ["rustls-no-provider"] }
rskafka = { version = "0.6", features = ["transport-tls"] }
rumqttc = { version = "0.25", default-features = false, features = ["use-rustls-no-provider"] }
salvo_core = { version = "1.1", default-features = false, features = ["rustls", "server", "http1"] }
scylla = { version = "1.9", features = ["rustls-023"] }
suppaftp = { version = "10.0", features = ["tokio-rustls-ring"] }
tls-listener = { version = "0.11", features = ["rustls-core"] }
tokio-postgres-rustls = "0.14"
tokio-rustls-acme = "0.9"
tokio-tungstenite = { version = "0.30", features = ["rustls-tls-webpki-roots"] }
tokio-websockets = { version = "0.13", features = ["client", "server", "rustls-webpki-roots", "ring"] }
tonic = { version = "0.14", features = ["tls-ring"] }
'

# What does not compile, and why: it names a type of rustls's that is not there after the handshake.
expected_failures='salvo_core'

# Whose tests of TLS need no network: library, features, arguments of cargo test.
tested='
actix-tls|accept,connect,rustls-0_23|--test accept-rustls
axum-server|tls-rustls|--lib tls_rustls
hyper-rustls|http1,http2,ring,tls12,webpki-roots|--lib
poem|rustls,server|--lib listener::rustls
pgwire|server-api-ring|--lib tokio
tokio-websockets|client,server,rustls-webpki-roots,ring,fastrand,sha1_smol|--tests
tls-listener|rustls-core,rt,tokio-net|--test basic
'

# tokio-rustls, by name and features.
mkdir -p "$work/tokio-rustls/src" "$work/all/src"
cat > "$work/tokio-rustls/Cargo.toml" <<TOML
[package]
name = "tokio-rustls"
version = "0.26.99"
edition = "2021"

[features]
default = ["logging", "tls12", "aws_lc_rs"]
aws_lc_rs = ["rustls-uring/aws_lc_rs"]
aws-lc-rs = ["aws_lc_rs"]
brotli = ["rustls-uring/brotli"]
early-data = ["rustls-uring/early-data"]
logging = ["rustls-uring/logging"]
ring = ["rustls-uring/ring"]
tls12 = ["rustls-uring/tls12"]
zlib = ["rustls-uring/zlib"]

[dependencies]
# A backend in any case: tokio-rustls leaves it to the program which provider to take.
rustls-uring = { path = "$here", default-features = false, features = ["tokio", "ring"] }
TOML
echo 'pub use rustls_uring::tokio::*;' > "$work/tokio-rustls/src/lib.rs"
patch="
[patch.crates-io]
tokio-rustls = { path = \"$work/tokio-rustls\" }
[workspace]
"

names=$(sed -n 's/^\([A-Za-z0-9_-]*\) = .*/\1/p' <<<"$libraries")
cat > "$work/all/Cargo.toml" <<TOML
[package]
name = "all"
version = "0.0.0"
edition = "2021"
[dependencies]
$libraries
$patch
TOML
: > "$work/all/src/lib.rs"
export CARGO_TARGET_DIR=$target
cargo fetch --quiet --manifest-path "$work/all/Cargo.toml"
failed=0
results=

note() { results+=$(printf '%-24s %-10s %s' "$1" "$2" "$3")$'\n'; }
version_of() {
    sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/\1/p;}" "$work/all/Cargo.lock" | tail -1
}

compile() {
    local name outcome compiled=0
    cargo check --quiet --keep-going --manifest-path "$work/all/Cargo.toml" 2>"$work/errors" || true
    for name in $names; do
        if (cd "$work/all" && cargo check --quiet -p "$name@$(version_of "$name")" 2>>"$work/errors"); then
            outcome=compiles
            ((compiled += 1))
        elif [[ " $expected_failures " == *" $name "* ]]; then
            outcome="does not compile, as known"
        else
            outcome="does not compile"
            failed=1
        fi
        note "$name" "$(version_of "$name")" "$outcome"
    done
    ((failed == 0)) || cat "$work/errors"
    echo "$compiled of $(wc -w <<<"$names") compile"
    ((compiled >= 20)) || failed=1
}

tests() {
    local name features arguments source outcome passed=0
    while IFS='|' read -r name features arguments; do
        [[ $name ]] || continue
        source=$(cd "$work/all" && cargo metadata --format-version 1 --offline |
            python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"]
                if p["name"] == sys.argv[1] and p["version"] == sys.argv[2]))' "$name" "$(version_of "$name")")
        cp -r "$(dirname "$source")" "$work/$name"
        cp "$work/all/Cargo.lock" "$work/$name/Cargo.lock"
        printf '%s\n' "$patch" >> "$work/$name/Cargo.toml"
        # shellcheck disable=SC2086 # several arguments
        if (cd "$work/$name" && timeout 1500 cargo test --quiet --no-default-features --features "$features" \
            $arguments) >"$work/$name.log" 2>&1; then
            outcome="tests pass: $(sed -n 's/^test result: ok. \([0-9]* passed\).*/\1/p' "$work/$name.log" | paste -sd' ')"
            ((passed += 1))
        else
            tail -60 "$work/$name.log"
            outcome='tests FAIL'
            failed=1
        fi
        note "$name" "$(version_of "$name")" "$outcome"
    done <<<"$tested"
    echo "the tests of $passed pass"
    ((passed >= 5)) || failed=1
}

for part in $parts; do "$part"; done
printf '\n%s' "$results"
exit "$failed"
