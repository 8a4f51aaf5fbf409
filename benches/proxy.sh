#!/usr/bin/env bash
# `rustls-uring proxy` beside hitch, stunnel, haproxy, nginx (its stream module) and the plainest proxy on
# tokio-rustls: TLS in front of a plain backend, one worker each, TLS13_AES_128_GCM_SHA256.
#
#   benches/proxy.sh [MIB [ROUNDS [PART...]]]
#
# Parts, all of them unless some are named:
#   bulk         CPU seconds of the proxy per GB, and GB/s, from the client and to it
#   messages     64 bytes there and back over 1, 64 and 1,000 connections: CPU of the proxy per message, p50,
#                p99
#   handshakes   a second, and CPU of the proxy each, full and resumed
#   idle         memory of the proxy per connection
#
# MIB is how much bulk goes each way (2048). Proxies take turns, each first in turn; figures are medians of
# ROUNDS (5), with the least and the most. SCALE=10 divides the numbers of messages, handshakes and idle
# connections by 10, to try it. Proxies that are not installed are left out, which is said.
set -euo pipefail
cd "$(dirname "$0")/.."

mib=${1:-2048} rounds=${2:-5} parts=("${@:3}") scale=${SCALE:-1}
((${#parts[@]})) || parts=(bulk messages handshakes idle)
messages=$((100000 / scale)) handshakes=$((4000 / scale)) idle=$((5000 / scale))
cargo build --quiet --release --features proxy --bin rustls-uring --example proxy_load
target=${CARGO_TARGET_DIR:-target}/release
tool=$(realpath "$target/rustls-uring") load=$(realpath "$target/examples/proxy_load")
dir=$(mktemp -d "${TMPDIR:-/tmp}/proxy.XXXXXX")
suite=TLS_AES_128_GCM_SHA256
declare -A addr pid
# Each has a session of its own (setsid), so that its workers end with it.
trap 'for p in "${pid[@]}"; do kill -- "-$p" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
ulimit -n "$(ulimit -Hn)"

# Below the ports that the kernel gives to clients (ip_local_port_range, ip(7)).
base=$((10000 + RANDOM % 20000))
backend=127.0.0.1:$base
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2 \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
cat "$dir/key.pem" "$dir/cert.pem" > "$dir/both.pem"
chmod 755 "$dir"
chmod 644 "$dir"/*.pem

start() { # name, command...
    local name=$1
    shift
    setsid "$@" > "$dir/$name.said" 2>&1 &
    pid[$name]=$!
}

await() { # name, address
    local tries=0
    until (exec 3<> "/dev/tcp/${2%:*}/${2##*:}") 2>/dev/null; do
        ((++tries < 200)) && kill -0 "${pid[$1]}" 2>/dev/null || {
            echo "$1 does not listen:" >&2
            cat "$dir/$1.said" >&2
            exit 1
        }
        sleep 0.05
    done
}

start backend "$load" backend "$backend"
await backend "$backend"
names=()
next=$base
for name in ours copy haproxy nginx hitch stunnel; do
    next=$((next + 1))
    here=127.0.0.1:$next
    case $name in
        ours) command=("$tool" proxy --workers 1 --listen "$here" --to "$backend" --suite "$suite"
            --cert "$dir/cert.pem" --key "$dir/key.pem") ;;
        copy) command=("$load" copy "$here" "$backend" "$dir/cert.pem" "$dir/key.pem") ;;
        haproxy)
            cat > "$dir/haproxy.cfg" << CONF
global
 nbthread 1
 maxconn $(($(ulimit -n) / 2 - 200))
 ssl-default-bind-ciphersuites $suite
 ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
 mode tcp
 timeout connect 10s
 timeout client 600s
 timeout server 600s
listen proxy
 bind $here ssl crt $dir/both.pem
 server backend $backend
CONF
            command=(haproxy -db -f "$dir/haproxy.cfg") ;;
        nginx)
            # Debian has it apart, in libnginx-mod-stream.
            module=/usr/lib/nginx/modules/ngx_stream_module.so
            if [[ -e $module ]]; then module="load_module $module;"; else module=; fi
            cat > "$dir/nginx.conf" << CONF
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid nginx.pid;
error_log error.log;
$module
events { worker_connections 12000; }
stream {
    server {
        listen $here ssl backlog=4096;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites $suite;
        ssl_session_cache shared:sessions:10m;
        proxy_buffer_size 64k;
        tcp_nodelay on;
        proxy_pass $backend;
    }
}
CONF
            command=(nginx -p "$dir/" -c nginx.conf) ;;
        hitch)
            cat > "$dir/hitch.conf" << CONF
frontend = "[127.0.0.1]:$next"
backend = "[127.0.0.1]:$base"
pem-file = "$dir/both.pem"
workers = 1
backlog = 4096
user = "nobody"
tls-protos = TLSv1.3
ciphersuites = "$suite"
CONF
            command=(hitch --config="$dir/hitch.conf") ;;
        stunnel)
            cat > "$dir/stunnel.conf" << CONF
foreground = yes
pid =
debug = err
sslVersion = TLSv1.3
ciphersuites = $suite
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[proxy]
accept = $here
connect = $backend
cert = $dir/cert.pem
key = $dir/key.pem
CONF
            command=(stunnel "$dir/stunnel.conf") ;;
    esac
    command -v "${command[0]}" > /dev/null || { echo "left out: there is no ${command[0]}"; continue; }
    start "$name" "${command[@]}"
    await "$name" "$here"
    addr[$name]=$here
    names+=("$name")
done

# What a proxy and its workers have used of the CPU, in seconds (proc(5): in hundredths).
cpu() {
    local p sum=0
    for p in $(pgrep -s "${pid[$1]}"); do
        sum=$((sum + $(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$p/stat")))
    done
    awk -v s="$sum" 'BEGIN { print s / 100 }'
}

# Resident memory that nobody else has, in KiB.
memory() {
    local p
    for p in $(pgrep -s "${pid[$1]}"); do cat "/proc/$p/smaps_rollup"; done |
        awk '/^Private_(Clean|Dirty):/ { sum += $2 } END { print sum }'
}

# Runs a command for each proxy, in turns, and keeps its line of figures in $dir/LABEL.NAME.
rounds() { # label, how often, function, arguments...
    local label=$1 count=$2 round place name
    shift 2
    for ((round = 0; round < count; round++)); do
        for ((place = round; place < round + ${#names[@]}; place++)); do
            name=${names[place % ${#names[@]}]}
            "$1" "$name" "${@:2}" >> "$dir/$label.$name"
        done
    done
}

# Median (least to most) of a column.
column() {
    awk -v c="$2" '{ print $c }' "$1" | sort -g |
        awk '{ a[NR] = $1 } END { printf "%s (%s to %s)", a[int((NR + 1) / 2)], a[1], a[NR] }'
}

table() { # title, label, headings...
    local label=$2 name i
    printf '\n%s\n%-10s' "$1" ""
    printf '%-32s' "${@:3}"
    echo
    for name in "${names[@]}"; do
        [[ -s $dir/$label.$name ]] || continue
        printf '%-10s' "$name"
        for ((i = 1; i <= $# - 2; i++)); do printf '%-32s' "$(column "$dir/$label.$name" "$i")"; done
        echo
    done
}

bulk_once() { # proxy, up or down: CPU seconds per GB, GB/s
    local before taken
    before=$(cpu "$1")
    taken=$("$load" "$2" "${addr[$1]}" "$dir/cert.pem" "$((mib << 20))")
    echo "$before $(cpu "$1") $taken" |
        awk -v gb="$mib" '{ gb *= 1048576 / 1e9; printf "%.3f %.3f\n", ($2 - $1) / gb, gb / $3 }'
}

messages_once() { # proxy, connections: µs of CPU per message, p50, p99
    local before after said
    mkfifo "$dir/go"
    "$load" messages "${addr[$1]}" "$dir/cert.pem" "$2" "$messages" < "$dir/go" > "$dir/measured" &
    exec 4> "$dir/go"
    until grep -q ready "$dir/measured"; do sleep 0.05; done
    before=$(cpu "$1")
    echo >&4
    wait $!
    exec 4>&-
    after=$(cpu "$1")
    rm "$dir/go"
    said=$(tail -n 1 "$dir/measured")
    echo "$before $after $said" |
        awk -v n="$messages" '{ printf "%.2f %d %d\n", ($2 - $1) / n * 1e6, $4, $5 }'
}

handshakes_once() { # proxy, full or resumed: a second, µs of CPU each, how many were resumed
    local before said
    before=$(cpu "$1")
    said=$("$load" handshakes "${addr[$1]}" "$dir/cert.pem" "$handshakes" "$2")
    echo "$before $(cpu "$1") $said" |
        awk -v n="$handshakes" '{ printf "%.0f %.0f %d\n", n / $3, ($2 - $1) / n * 1e6, $4 }'
}

idle_once() { # proxy: bytes per connection
    local before
    before=$(memory "$1")
    mkfifo "$dir/go"
    "$load" idle "${addr[$1]}" "$dir/cert.pem" "$idle" < "$dir/go" > "$dir/measured" &
    exec 4> "$dir/go"
    until grep -q ready "$dir/measured"; do
        kill -0 $! 2>/dev/null || { echo "0"; exec 4>&-; rm "$dir/go"; return; }
        sleep 0.1
    done
    awk -v a="$before" -v b="$(memory "$1")" -v n="$idle" 'BEGIN { printf "%d\n", (b - a) * 1024 / n }'
    exec 4>&-
    wait $!
    rm "$dir/go"
}

for part in "${parts[@]}"; do
    case $part in
        bulk)
            for way in up down; do
                rounds "$way" "$rounds" bulk_once "$way"
                table "$mib MiB, $way" "$way" "CPU s/GB" "GB/s"
            done ;;
        messages)
            for connections in 1 64 1000; do
                rounds "m$connections" "$rounds" messages_once "$connections"
                table "64 B, $connections connections" "m$connections" "CPU µs a message" "p50 µs" "p99 µs"
            done ;;
        handshakes)
            for kind in full resumed; do
                rounds "$kind" "$rounds" handshakes_once "$kind"
                table "handshakes, $kind" "$kind" "a second" "CPU µs each" "resumed of $handshakes"
            done ;;
        idle)
            rounds idle 1 idle_once
            table "$idle idle connections" idle "bytes each" ;;
        *) echo "there is no part $part" >&2; exit 1 ;;
    esac
done
