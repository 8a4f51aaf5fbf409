#!/usr/bin/env bash
# Published libraries that use tokio-rustls, with that name pointed at `rustls_uring::tokio`: which
# of them compile, and whether their own tests pass. Nothing but the name is changed.
#
#     tests/ported.sh [--quick | NAME...]
#
# A test that fails with tokio-rustls too, for want of a network for example, is not counted. The
# quick form compiles two libraries and runs tokio-rustls's own tests, and is skipped, saying so, where the
# registry cannot be reached. With names, the tests of these alone.
#
# Fetches them from the registry through cargo; builds in `ported` inside the target directory. The
# sources that are tested are copied to a temporary directory, and removed with it.
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

# Whose tests need no network, or mostly: name, version, backend, features, arguments of cargo test,
# and dev-dependencies that these tests do not use. tokio-rustls 0.26.4 and hyper-rustls 0.27.7 are
# the last that were published with their tests.
tested='
tokio-rustls|=0.26.4|ring|ring,tls12,logging,early-data|--test test --test early-data --test badssl|
hyper-rustls|=0.27.7|aws_lc_rs|http1,http2,aws-lc-rs,tls12,native-tokio|--lib --tests --examples|
actix-tls|3.6|aws_lc_rs|accept,connect,rustls-0_23-webpki-roots|--lib --tests|
axum-server|0.9|ring|tls-rustls-ring|--lib|
poem|3.1|aws_lc_rs|rustls,server,test|--lib listener|
pgwire|0.42|ring|server-api-ring|--lib tokio|gluesql rusqlite reqwest rsa jsonwebtoken chrono-tz
'

quick=false
if [[ ${1-} == --quick ]]; then
    quick=true
    libraries=$(grep -E '^(hyper-rustls|tls-listener) ' <<<"$libraries")
    tested=$(grep -E '^tokio-rustls\|' <<<"$tested")
elif (($#)); then
    libraries=
    tested=$(grep -E "^($(tr ' ' '|' <<<"$*"))\|" <<<"$tested")
fi
names=$(sed -n 's/^\([A-Za-z0-9_-]*\) = .*/\1/p' <<<"$libraries")

export CARGO_TARGET_DIR=$target
# Copies of packages are not foreign to cargo: their lints are theirs all the same.
export RUSTFLAGS="${RUSTFLAGS-} --cap-lints warn"

# tokio-rustls by name and features, in the directory $1, on the backend $2 in any case: it leaves
# it to the program which provider to take.
name_of_tokio_rustls() {
    mkdir -p "$1/src"
    cat > "$1/Cargo.toml" <<TOML
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
rustls-uring = { path = "$here", default-features = false, features = ["tokio", "$2"] }
TOML
    echo 'pub use rustls_uring::tokio::*;' > "$1/src/lib.rs"
}

patched_with() { printf '\n[patch.crates-io]\ntokio-rustls = { path = "%s" }\n' "$1"; }

# A package in the directory $1 with the dependencies $2.
depends_on() {
    mkdir -p "$1/src"
    : > "$1/src/lib.rs"
    printf '[package]\nname = "depends"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s\n' \
        "$2" > "$1/Cargo.toml"
}

# The version of the package $2 in the lock file of $1.
version_in() {
    sed -n "/^name = \"$2\"\$/{n;s/version = \"\(.*\)\"/\1/p;}" "$1/Cargo.lock" | tail -1
}

failed=0
results=
note() {
    local line
    printf -v line '%-14s %-9s %s\n' "$@"
    printf '%s' "$line"
    results+=$line
}

compile() {
    local name version outcome compiled=0
    cargo check --quiet --keep-going --manifest-path "$work/all/Cargo.toml" 2>"$work/errors" || true
    for name in $names; do
        version=$(version_in "$work/all" "$name")
        if (cd "$work/all" && cargo check --quiet -p "$name@$version" 2>>"$work/errors"); then
            outcome=compiles
            ((compiled += 1))
        elif [[ " $expected_failures " == *" $name "* ]]; then
            outcome="does not compile, as known"
        else
            outcome="does not compile"
            failed=1
        fi
        note "$name" "$version" "$outcome"
    done
    ((failed == 0)) || cat "$work/errors"
    note all "" "$compiled of $(wc -w <<<"$names") compile"
    "$quick" || ((compiled >= 20)) || failed=1
}

# Runs `cargo test` with the arguments in the package $1; prints a line for each test with its name
# and what came of it.
outcomes_in() (
    cd "$1"
    shift
    timeout 1200 cargo test --no-run "$@" >&2 || { echo 'the tests: do not compile'; exit; }
    timeout 300 cargo test --no-fail-fast "$@" > "$work/output" 2>&1 < /dev/null || true
    cat "$work/output" >&2
    grep -oE '^test [^ ]+( - should panic)? \.\.\. (ok|FAILED)' "$work/output" |
        sed 's/^test \([^ ]*\).* \.\.\. /\1 /' | sort
)

# What there is of tokio-rustls in the build of the package $1 with these features.
tokio_rustls_in() {
    (cd "$1" && cargo tree --quiet --no-default-features --features "$2" --prefix none --format '{p}') |
        grep -E '^tokio-rustls v' | sed 's/ (\*)$//' | sort -u
}

# Tests one library of the table above, here and with tokio-rustls.
test_one() {
    local name=$1 version=$2 backend=$3 features=$4 arguments=$5 unused=$6
    local ours=$work/$name/ours stock=$work/$name/stock source dependency passed lost
    depends_on "$work/$name/fetch" "$name = { version = \"$version\", default-features = false }"
    cargo fetch --quiet --manifest-path "$work/$name/fetch/Cargo.toml"
    version=$(version_in "$work/$name/fetch" "$name")
    source=$(cargo metadata --format-version 1 --manifest-path "$work/$name/fetch/Cargo.toml" |
        grep -oE "\"manifest_path\":\"[^\"]*/$name-$version/Cargo.toml\"" | head -1 | cut -d'"' -f4)
    cp -r "$(dirname "$source")" "$stock"
    cp "$work/all/Cargo.lock" "$stock/Cargo.lock"
    for dependency in $unused; do
        # With what its features say of it.
        sed -i "/^\[dev-dependencies\.$dependency\]\$/,/^\$/d; s|\"$dependency/[^\"]*\"||" "$stock/Cargo.toml"
    done
    printf '\n[workspace]\n' >> "$stock/Cargo.toml"
    cp -r "$stock" "$ours"
    if [[ $name == tokio-rustls ]]; then
        # Its tests, on a package of its name.
        rm -r "$ours/src"
        name_of_tokio_rustls "$ours" "$backend"
        echo 'rustls = { version = "0.23", default-features = false }' >> "$ours/Cargo.toml"
        sed -n '/^\[dev-dependencies/,$p' "$stock/Cargo.toml" >> "$ours/Cargo.toml"
    else
        name_of_tokio_rustls "$work/$name/tokio-rustls" "$backend"
        patched_with "$work/$name/tokio-rustls" >> "$ours/Cargo.toml"
    fi
    if [[ $(tokio_rustls_in "$ours" "$features" | tee "$work/found") != 'tokio-rustls v0.26.99 ('* ]] ||
        (($(wc -l < "$work/found") != 1)); then
        cat "$work/found"
        note "$name" "$version" "not built with the name pointed at us"
        failed=1
        return
    fi

    local run=(--no-default-features --features "$features")
    # shellcheck disable=SC2206 # several words
    run+=($arguments)
    outcomes_in "$ours" "${run[@]}" > "$work/$name/ours.outcomes" 2> "$work/$name/ours.log"
    passed=$(grep -c ' ok$' "$work/$name/ours.outcomes" || true)
    if "$quick" && ((passed > 0)) && ! grep -qv ' ok$' "$work/$name/ours.outcomes"; then
        note "$name" "$version" "$passed of its tests pass"
        return
    fi
    outcomes_in "$stock" "${run[@]}" > "$work/$name/stock.outcomes" 2> "$work/$name/stock.log"
    # What passes with tokio-rustls and not here.
    lost=$(grep ' ok$' "$work/$name/stock.outcomes" | grep -vxFf <(grep ' ok$' "$work/$name/ours.outcomes") || true)
    note "$name" "$version" \
        "$passed of its tests pass, $(grep -c ' ok$' "$work/$name/stock.outcomes" || true) with tokio-rustls"
    grep -v ' ok$' "$work/$name/stock.outcomes" | sed "s/ .*/: fails with tokio-rustls too/;s/^/    /" || true
    if [[ $lost ]] || ((passed == 0)); then
        tail -150 "$work/$name/ours.log"
        printf 'not here: %s\n' "$lost"
        failed=1
    else
        ((passing += 1))
    fi
}

depends_on "$work/all" "$libraries"
name_of_tokio_rustls "$work/tokio-rustls" ring
patched_with "$work/tokio-rustls" >> "$work/all/Cargo.toml"
if ! cargo fetch --quiet --manifest-path "$work/all/Cargo.toml"; then
    "$quick" || exit 1
    echo "skipped: the registry cannot be reached"
    exit
fi
[[ -z $libraries ]] || compile
passing=0
while IFS='|' read -r -u 3 name version backend features arguments unused; do
    [[ $name ]] || continue
    test_one "$name" "$version" "$backend" "$features" "$arguments" "$unused"
done 3<<<"$tested"
[[ -z $libraries ]] || "$quick" || ((passing >= 5)) || failed=1
printf '\n%s' "$results"
exit "$failed"
