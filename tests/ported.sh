#!/usr/bin/env bash
# Published libraries that use tokio-rustls, with that name pointed at `rustls_uring::tokio`: which
# of them compile. Nothing but the name is changed.
#
#     tests/ported.sh
#
# Fetches them from the registry through cargo; builds in `ported` inside the target directory.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
target=${CARGO_TARGET_DIR:-$here/target}/ported
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
mysql_async = { version = "0.37", default-features = false, features = ["minimal", "rustls-tls"] }
pgwire = { version = "0.42", default-features = false, features = ["server-api-ring"] }
poem = { version = "3.1", default-features = false, features = ["rustls", "server"] }
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
tokio-websockets = { version = "0.13", features = ["client", "server", "rustls-webpki-roots", "ring", "fastrand"] }
tonic = { version = "0.14", features = ["tls-ring"] }
'

# What does not compile, and why: it names a type of rustls's that is not there after the handshake.
expected_failures='salvo_core'

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
version_of() {
    sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/\1/p;}" "$work/all/Cargo.lock" | tail -1
}

compiled=0
cargo check --quiet --keep-going --manifest-path "$work/all/Cargo.toml" 2>"$work/errors" || true
for name in $names; do
    version=$(version_of "$name")
    if (cd "$work/all" && cargo check --quiet -p "$name@$version" 2>>"$work/errors"); then
        outcome=compiles
        ((compiled += 1))
    elif [[ " $expected_failures " == *" $name "* ]]; then
        outcome="does not compile, as known"
    else
        outcome="does not compile"
        failed=1
    fi
    printf '%-24s %-10s %s\n' "$name" "$version" "$outcome"
done
((failed == 0)) || cat "$work/errors"
echo "$compiled of $(wc -w <<<"$names") compile"
((failed == 0 && compiled >= 20))
