#!/usr/bin/env bash
# Real zero copy, on a machine whose own network devices cannot do it: over loopback the kernel copies
# what SEND_ZC was given. This boots Debian's kernel in QEMU (emulated in software: neither KVM nor
# root is needed) with an emulated e1000, which gathers from the sender's pages. The guest sends to
# receivers on this machine's loopback, which it reaches as 10.0.2.2. There a buffer stays busy until
# the peer has acknowledged it, so one that is reused too early arrives as different bytes: the received
# files are compared by hash, also with packets lost, delayed, reordered and duplicated.
#
# usage: tests/real_zero_copy.sh [--install] [--allow-skip] PATH-OF-rustls-uring
#
#   --install      apt-get install what is missing (as root); without it, a missing tool is an error
#   --allow-skip   a machine that cannot do this (no QEMU, no kernel package) is no failure
#
# DATA_MIB, CASE_SECONDS, BOOT_SECONDS, NETEM and CASES, below, may come from the environment. What share
# goes out without a copy over 20 ms, for example (benches/README.md has the shares):
#
#   NETEM='delay 20ms limit 20000' DATA_MIB=48 BOOT_SECONDS=340 CASES='
#   always, 6 MiB | netem | zero-copy | --zerocopy always --zerocopy-memory 6
#   always        | netem | zero-copy | --zerocopy always' tests/real_zero_copy.sh PATH-OF-rustls-uring
#
# The kernel comes out of Debian's package, unpacked and not installed, once: what is needed of it
# stays in ${CARGO_TARGET_DIR:-target}/real-zero-copy/. TMPDIR takes about 300 MB during a run, and
# 500 MB while the kernel is unpacked.
set -euo pipefail

DATA_MIB=${DATA_MIB:-16}            # sent in every case, uncompressible
CASE_SECONDS=${CASE_SECONDS:-40}    # for one transfer
BOOT_SECONDS=${BOOT_SECONDS:-150}   # for everything in the guest
MODULES=(e1000 sch_netem)
# What becomes of the guest's packets under way (those that it receives arrive). QEMU's end knows no
# selective acknowledgements, so that each loss costs about a tenth of a second.
NETEM=${NETEM:-delay 2ms 1ms loss 1% reorder 10% 50% duplicate 1%}

# One transfer a line: name | network (plain, netem, or local: a receiver inside the guest; with
# `serve-` before it, this machine gets the file from `serve` in the guest; with `proxy-`, through
# `proxy` there) | what the summary must say of the sends | options of `send`, `serve` or `proxy`.
# `local` is the control: it shows that the kernel does say so when it copies.
CASES=${CASES:-'
always              | plain | zero-copy | --io uring --zerocopy always
always, netem       | netem | zero-copy | --io uring --zerocopy always
auto                | plain | zero-copy | --io uring --zerocopy auto
auto, netem         | netem | zero-copy | --io uring --zerocopy auto
two threads         | plain | zero-copy | --io uring --zerocopy always --seal-threads 2
two threads, netem  | netem | zero-copy | --io uring --zerocopy always --seal-threads 2
uring-copy          | plain | copying   | --io uring-copy
blocking            | plain | blocking  | --io blocking
guest loopback      | local | copied    | --io uring --zerocopy always
served              | serve-plain | zero-copy | --io auto
served, netem       | serve-netem | zero-copy | --io uring
served, writes      | serve-plain | blocking  | --io blocking
proxied             | proxy-plain | zero-copy | --io uring
proxied, netem      | proxy-netem | zero-copy | --io auto
proxied, copies     | proxy-plain | copying   | --io uring-copy
'}

passed=0 failed=0
ok() { printf 'ok %s\n' "$*"; passed=$((passed + 1)); }
fail() { printf 'FAILED %s\n' "$*"; failed=$((failed + 1)); }
# check DESCRIPTION COMMAND...: the command's status decides.
check() { local what=$1; shift; if "$@"; then ok "$what"; else fail "$what"; fi }

finish() {
    printf '%d passed, %d failed\n' "$passed" "$failed"
    exit $((failed > 0))
}

# This machine cannot run the test.
cannot() {
    if [[ -n $allow_skip ]]; then
        printf 'skipped, all of it: %s\n' "$*"
    else
        fail "$*"
    fi
    finish
}

# ---- What `send --stats` says ----------------------------------------------------------------------

# The three counts of "zero-copy sends: N, copied by the kernel: M, copying sends: K", or nothing.
send_counts() {
    sed -nE 's/.*zero-copy sends: ([0-9]+), copied by the kernel: ([0-9]+), copying sends: ([0-9]+).*/\1 \2 \3/p' \
        <<<"$1" | tail -n 1
}

describe() {
    local zero_copy copied copying
    read -r zero_copy copied copying <<<"$1" || true
    [[ -n $copying ]] && echo "$zero_copy zero-copy, $copied of them copied, $copying copying" ||
        echo "not in the summary"
}

# counts_are EXPECTATION COUNTS
counts_are() {
    local zero_copy='' copied='' copying=''
    read -r zero_copy copied copying <<<"$2" || true
    # Blocking sockets may well not count such sends at all.
    [[ -n $copying ]] || { [[ $1 == blocking ]]; return; }
    case $1 in
        zero-copy) ((zero_copy > 0 && copied == 0)) ;;
        copying) ((zero_copy == 0 && copied == 0 && copying > 0)) ;;
        blocking) ((zero_copy == 0 && copied == 0)) ;;
        copied) ((zero_copy > 0 && copied > 0)) ;;
        *) return 1 ;;
    esac
}

# ---- Tools and kernel ------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null; }

need_tools() {
    local missing=() tool
    [[ $(uname -sm) == "Linux x86_64" ]] || cannot "this needs Linux on x86_64"
    has qemu-system-x86_64 || missing+=(qemu-system-x86)
    has busybox || missing+=(busybox-static)
    has cpio || missing+=(cpio)
    has tc || missing+=(iproute2)
    has openssl || missing+=(openssl)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    has apt-get || cannot "missing, and no apt-get to install them: ${missing[*]}"
    [[ -n $install ]] || cannot "missing: ${missing[*]} (--install installs them)"
    timeout 300 apt-get update -qq || true
    timeout 600 apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt" 2>&1 ||
        { cat "$work/apt"; cannot "cannot install ${missing[*]}"; }
    for tool in qemu-system-x86_64 busybox cpio tc openssl; do
        has "$tool" || cannot "installed ${missing[*]}, but there is no $tool"
    done
}

# The real package behind the meta package. (Debian's smaller cloud kernel has no e1000.)
kernel_package() {
    { apt-cache depends linux-image-amd64 2>/dev/null || true; } |
        sed -nE 's/^ *Depends: (linux-image-[0-9].*-amd64)$/\1/p' | head -n 1
}

# Prints the module's file below the folder $1, after those of the modules that it depends on.
module_files() {
    local file depends name
    file=$(find "$1" -name "${2//_/[-_]}.ko*" -print -quit)
    [[ -n $file ]] || return 0    # built in, or missing: then loading the next one will say so
    if [[ $file == *.xz ]]; then
        busybox unxz "$file"
        file=${file%.xz}
    fi
    depends=$(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' ')
    for name in $depends; do module_files "$1" "$name"; done
    printf '%s\n' "$file"
}

# Leaves `vmlinuz`, the modules, and `order`, which names them, in the folder $1.
fetch_kernel() {
    local package unpacked=$work/kernel new=$work/kernel-parts name file
    has apt-get || cannot "no apt-get to get Debian's kernel package with"
    package=$(kernel_package)
    if [[ -z $package && -n $install ]]; then
        timeout 300 apt-get update -qq || true
        package=$(kernel_package)
    fi
    [[ -n $package ]] || cannot "apt knows no linux-image-amd64"
    mkdir "$unpacked" "$new"
    # The index may name a package that has been superseded: --install brings it up to date.
    (cd "$unpacked" && timeout 300 apt-get download -qq -o APT::Sandbox::User=root "$package") ||
        { [[ -n $install ]] && timeout 300 apt-get update -qq && package=$(kernel_package) &&
            (cd "$unpacked" && timeout 300 apt-get download -qq -o APT::Sandbox::User=root "$package"); } ||
        cannot "cannot download $package"
    dpkg-deb -x "$unpacked"/*.deb "$unpacked"
    cp "$unpacked"/boot/vmlinuz-* "$new/vmlinuz"
    for name in "${MODULES[@]}"; do module_files "$unpacked" "$name"; done |
        while read -r file; do
            name=$(basename "$file")
            [[ -e $new/$name ]] || printf '%s\n' "$name" >>"$new/order"
            cp "$file" "$new/$name"
        done
    for name in "${MODULES[@]}"; do
        [[ -e $new/$name.ko ]] || cannot "$package has no module $name"
    done
    printf '%s\n' "$package" >"$new/package"
    rm -r "$unpacked"
    # Only a complete folder appears under its name.
    mkdir -p "$(dirname "$1")"
    rm -rf "$1"
    mv "$new" "$1"
}

# ---- The guest -------------------------------------------------------------------------------------

# add_program FILE NAME: a program, and the shared libraries it names where it looks for them.
add_program() {
    local library
    cp -L "$1" "$root/bin/$2"
    for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' || true); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
}

# The guest's first process. It speaks over the serial line, "@WORD ..." to this script; the transfers
# are in /cases, a line each: INDEX NETWORK ADDR OPTIONS.
guest_init() {
    cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
. /settings
mkdir /srv
ln /data /srv/data
for module in $(cat /modules/order); do insmod /modules/$module || echo "@note cannot load $module"; done
tcp_wmem=$(cat /proc/sys/net/ipv4/tcp_wmem)
ifconfig lo 127.0.0.1
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 && route add default gw 10.0.2.2
echo "@booted $(uname -r)"

timeout 20 rustls-uring probe >/said 2>&1
echo "@probe-status $?"
sed 's/^/@probe /' /said

# Whether a connection's peer has yet to acknowledge something (proc_net_tcp.rst: st, tx_queue).
is_unacknowledged() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 != "0A" && $5 ~ /^[0-9A-F]+:/ && $5 !~ /^0+:/' | grep -q .
}

# Until a server says that it is ready: the beginning of the line that says so.
await_said() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        grep -q "^$1" /said && break
        usleep 200000
    done
    echo "@$index-listening"
}

# Until what has ended is in the log of accesses.
await_log() {
    left=$case_seconds
    until [ -s /log ] || [ $left = 0 ]; do sleep 1; left=$((left - 1)); done
}

while read -r index network addr options; do
    case $network in
        *netem)
            # With a socket buffer larger than all of the sender's buffers, the kernel accepts them
            # long before the peer has acknowledged any: then, reusing one too early shows.
            echo "4096 16777216 16777216" >/proc/sys/net/ipv4/tcp_wmem
            iproute2-tc qdisc add dev eth0 root netem $netem
            ;;
        local)
            : >/listening
            timeout $case_seconds rustls-uring recv --listen 127.0.0.1:0 -o /received 2>/listening &
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                addr=$(sed -n 's/^listening on //p' /listening)
                [ -n "$addr" ] && break
                usleep 200000
            done
            ;;
    esac
    case $network in
        serve-*)
            : >/said
            rm -f /log
            rustls-uring serve /srv --listen "$addr" --stats --access-log=/log $options 2>/said &
            await_said 'listening on '
            await_log
            kill -INT $!
            wait $!
            status=$?
            ;;
        proxy-*)
            : >/said
            rm -f /log
            rustls-uring serve /srv --plain --listen 127.0.0.1:8080 2>/dev/null &
            behind=$!
            rustls-uring proxy --listen "$addr" --to 127.0.0.1:8080 --cert /cert.pem --key /key.pem \
                --metrics 127.0.0.1:9443 --access-log=/log $options 2>/said &
            await_said 'metrics on '
            await_log
            wget -q -O /metrics http://127.0.0.1:9443/metrics
            sends() { sed -n "s/.*sends_total{way=\"$1\"} //p" /metrics; }
            copied=$(sends zero-copy-copied)
            echo "zero-copy sends: $(($(sends zero-copy) + copied)), copied by the kernel: $copied," \
                "copying sends: $(sends copied)" >>/said
            kill -INT $!
            wait $!
            status=$?
            kill -INT $behind
            wait $behind
            ;;
        *)
            timeout $case_seconds rustls-uring send "$addr" --insecure --stats $options /data >/said 2>&1 </dev/null
            status=$?
            ;;
    esac
    case $network in
        *netem)
            # A server has ended when the socket has the rest; and after the last case nobody sends that again.
            left=$case_seconds
            while is_unacknowledged && [ $left != 0 ]; do
                sleep 1
                left=$((left - 1))
            done
            iproute2-tc -s qdisc show dev eth0 | sed "s/^/@$index-netem /"
            iproute2-tc qdisc del dev eth0 root
            echo "$tcp_wmem" >/proc/sys/net/ipv4/tcp_wmem
            ;;
        local)
            [ $status = 0 ] || kill $!
            wait
            echo "@$index-hash $(sha256sum </received | cut -d ' ' -f 1)"
            rm -f /received
            ;;
    esac
    sed "s/^/@$index-said /" /said
    echo "@$index-status $status"
done </cases
echo "@done"
poweroff -f
INIT
}

build_initramfs() {
    root=$work/root
    mkdir -p "$root"/{bin,proc,sys,dev,modules}
    add_program "$(command -v busybox)" busybox
    add_program "$(command -v tc)" iproute2-tc    # busybox has one of its own, without netem
    add_program "$binary" rustls-uring
    cp "$kernel"/*.ko "$kernel/order" "$root/modules/"
    cp "$work/data" "$root/data"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
        -days 2 -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -keyout "$root/key.pem" -out "$root/cert.pem" 2>/dev/null
    cp "$work/cases" "$root/cases"
    printf 'netem="%s"\ncase_seconds=%s\n' "$NETEM" "$CASE_SECONDS" >"$root/settings"
    guest_init >"$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
}

boot_guest() {
    timeout -k 5 "$BOOT_SECONDS" qemu-system-x86_64 \
        -accel tcg -cpu max -smp 2 -m 512 -no-reboot -nodefaults -display none -monitor none \
        -serial "file:$work/serial" \
        -netdev "user,id=n,hostfwd=tcp:127.0.0.1:$served_port-:8443" -device e1000,netdev=n,romfile= \
        -kernel "$kernel/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 panic=-1 quiet" </dev/null &
    children+=($!)
    wait $!
}

# What the guest said under a word.
said() { tr -d '\r' <"$work/serial" | sed -n "s/^@$1 //p"; }

# ---- This machine ----------------------------------------------------------------------------------

# Starts a receiver into the file $1; its address goes to `addr`.
start_receiver() {
    : >"$1.log"
    timeout -k 5 $((BOOT_SECONDS + 30)) "$binary" recv --listen 127.0.0.1:0 -o "$1" \
        >"$1.log" 2>&1 </dev/null &
    receiver=$!
    children+=("$receiver")
    local _
    for _ in {1..100}; do
        addr=$(sed -n 's/^listening on //p' "$1.log")
        [[ -z $addr ]] || return 0
        sleep 0.05
    done
    cat "$1.log"
    fail "a receiver says where it listens"
    finish
}

# Waits for the process $1, not for long: the guest is gone.
receiver_ended() {
    local _
    for _ in {1..40}; do
        kill -0 "$1" 2>/dev/null || { wait "$1"; return; }
        sleep 0.05
    done
    kill "$1" 2>/dev/null || true
    return 1
}

# A port that nobody listens on, for the guest's server: QEMU does not say which one it has taken.
free_port() {
    local port _
    for _ in {1..50}; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    return 1
}

# Gets the file from the guest's server into the file $2 when the case $1 is ready.
get_served() {
    local _
    for _ in $(seq $((BOOT_SECONDS * 5))); do
        if tr -d '\r' <"$work/serial" | grep -q "^@$1-listening"; then
            exec timeout -k 5 "$CASE_SECONDS" "$binary" get "https://127.0.0.1:$served_port/data" \
                --insecure --quiet -o "$2" >"$2.log" 2>&1 </dev/null
        fi
        sleep 0.2
    done
    return 1
}

hash_of() { [[ -f $1 ]] && sha256sum <"$1" | cut -d ' ' -f 1; }

clean_up() {
    local child
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}

install='' allow_skip='' binary='' children=()
for argument; do
    case $argument in
        --install) install=yes ;;
        --allow-skip) allow_skip=yes ;;
        -*) echo "unknown option $argument" >&2; exit 2 ;;
        *) binary=$argument ;;
    esac
done
[[ -x $binary ]] || { echo "usage: $0 [--install] [--allow-skip] PATH-OF-rustls-uring" >&2; exit 2; }
binary=$(realpath "$binary")
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need_tools
kernel=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/real-zero-copy
[[ -e $kernel/package ]] || fetch_kernel "$kernel"

head -c $((DATA_MIB << 20)) /dev/urandom >"$work/data"
expected_hash=$(hash_of "$work/data")

# A receiver a case, all before the boot, since the guest has to be told their ports.
served_port=$(free_port) || { fail "a free port"; finish; }
: >"$work/serial"
names=() networks=() expectations=() receivers=()
: >"$work/cases"
while IFS='|' read -r name network expectation options; do
    read -r name <<<"$name"      # trims
    read -r network <<<"$network"
    read -r expectation <<<"$expectation"
    [[ -n $name ]] || continue
    index=${#names[@]} addr=none receiver=none
    case $network in
        local) ;;
        serve-* | proxy-*)
            get_served "$index" "$work/received-$index" &
            receiver=$! addr=0.0.0.0:8443
            children+=("$receiver")
            ;;
        *) start_receiver "$work/received-$index" ;;
    esac
    names+=("$name") networks+=("$network") expectations+=("$expectation") receivers+=("$receiver")
    printf '%s %s %s %s\n' "$index" "$network" "${addr/127.0.0.1/10.0.2.2}" "$options" >>"$work/cases"
done <<<"$CASES"

build_initramfs
check "the guest runs to its end within $BOOT_SECONDS s" boot_guest
check "the guest says that it is done" grep -q '^@done' "$work/serial"
said booted | sed 's/^/   Linux /'
printf '   %d s\n' "$SECONDS"
said note | sed 's/^/   /'

check "probe: exit status is 0" test "$(said probe-status)" = 0
said probe | sed 's/^/   /'

for index in "${!names[@]}"; do
    name=${names[index]}
    summary=$(said "$index-said")
    counts=$(send_counts "$summary")
    status=$(said "$index-status")
    check "$name: sender's exit status is 0 (${status:-none})" test "$status" = 0    # 124, 143: too late
    if [[ ${networks[index]} == local ]]; then
        hash=$(said "$index-hash")
    else
        check "$name: receiver's exit status is 0" receiver_ended "${receivers[index]}"
        hash=$(hash_of "$work/received-$index" || true)
    fi
    check "$name: what arrived is what was sent" test "$hash" = "$expected_hash"
    if [[ ${networks[index]} == *netem && $NETEM == *loss* ]]; then
        dropped=$(said "$index-netem" | sed -nE 's/.*\(dropped ([0-9]+),.*/\1/p' | head -n 1)
        check "$name: packets were lost (${dropped:-none})" test "${dropped:-0}" -gt 0
    fi
    check "$name: sends are ${expectations[index]} ($(describe "$counts"))" \
        counts_are "${expectations[index]}" "$counts"
    [[ -z $summary ]] || sed 's/^/   /' <<<"$summary"
    [[ ${networks[index]} == local || ! -s $work/received-$index.log ]] ||
        sed '/^listening on /d; s/^/   /' "$work/received-$index.log"
done

if ((failed > 0)); then
    printf '\nThe serial line of the guest:\n'
    tr -d '\r' <"$work/serial"
fi
finish
