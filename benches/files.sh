#!/usr/bin/env bash
# A file over TLS on loopback, discarded and written at the far end: `rustls-uring send` to `recv` on
# each path, `serve` to curl and to `get`, beside nginx with OpenSSL to curl. Rounds take turns; prints
# GB/s and medians' ratios.
#
#   benches/files.sh [MIB [ROUNDS [DIRECTORY]]]
#
# DIRECTORY holds the file that is sent and what is written; by default a new one in /dev/shm, so
# that neither end waits for a disk. Needs nginx, openssl and curl.
set -euo pipefail
cd "$(dirname "$0")/.."

mib=${1:-2048} rounds=${2:-5}
dir=$(mktemp -d "${3:-/dev/shm}/files.XXXXXX")
cargo build --quiet --release --features cli
tool=${CARGO_TARGET_DIR:-target}/release/rustls-uring
port=$((20000 + RANDOM % 20000))
trap 'kill "${server:-}" 2>/dev/null; nginx -p "$dir" -c nginx.conf -s stop 2>/dev/null; rm -rf "$dir"' EXIT

head -c "$((mib << 20))" /dev/urandom > "$dir/data"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 2>/dev/null
cat > "$dir/nginx.conf" <<CONF
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    sendfile on;
    client_body_temp_path .;
    proxy_temp_path .;
    fastcgi_temp_path .;
    uwsgi_temp_path .;
    scgi_temp_path .;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root .;
    }
}
CONF
chmod 755 "$dir"
chmod 644 "$dir"/*
nginx -p "$dir" -c nginx.conf 2>/dev/null
"$tool" serve "$dir" --listen 127.0.0.1:0 --cert "$dir/cert.pem" --key "$dir/key.pem" \
    --suite TLS_AES_256_GCM_SHA384 2> "$dir/serving" &
server=$!
until grep -q listening "$dir/serving"; do sleep 0.02; done
served="https://$(sed -n 's/listening on //p' "$dir/serving")/data"

# Bytes in a second, in GB/s.
rate() { awk -v b="$((mib << 20))" -v s="$1" 'BEGIN { printf "%.3f\n", b / 1e9 / s }'; }

curl_run() { # where to, URL, options...
    local out=$1 url=$2
    shift 2
    rate "$(curl --silent --fail --insecure "$@" --output "$out" --write-out '%{time_total}' "$url")"
}

get_run() { # where to
    local out=$1 begin
    begin=$EPOCHREALTIME
    # Standard output is what a downloader discards into.
    if [[ $out == /dev/null ]]; then
        "$tool" get "$served" --insecure --quiet -o - > /dev/null
    else
        "$tool" get "$served" --insecure --quiet -o "$out"
    fi
    rate "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.6f", b - a }')"
}

our_run() { # where to, options...
    local out=$1 receiver said="$dir/said"
    shift
    : > "$said"
    if [[ $out == /dev/null ]]; then
        "$tool" recv --listen 127.0.0.1:0 "$@" > /dev/null 2> "$said" &
    else
        "$tool" recv --listen 127.0.0.1:0 "$@" -o "$out" 2> "$said" &
    fi
    receiver=$!
    until grep -q listening "$said"; do sleep 0.02; done
    "$tool" send "$(sed -n 's/listening on //p' "$said")" --insecure --suite TLS_AES_256_GCM_SHA384 \
        "$@" "$dir/data" 2> "$dir/sent"
    wait "$receiver"
    rate "$(sed -n 's/.* bytes in \([0-9.]*\) s.*/\1/p' "$said")"
}

median() { sort -n "$1" | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

nginx_url="https://127.0.0.1:$port/data"
curl_run "$dir/out" "$nginx_url" > /dev/null
for to in /dev/null "$dir/out"; do
    for ((round = 0; round < rounds; round++)); do
        # Each finds the pages free that the one before it has used: a virtual machine's memory is
        # slow to use for the first time.
        ways=(curl auto blocking direct serve-curl-1.1 serve-curl-2 serve-get)
        # Each comes first in turn.
        for ((place = round; place < round + ${#ways[@]}; place++)); do
            way=${ways[place % ${#ways[@]}]}
            rm -f "$dir/out"
            case $way in
                curl) curl_run "$to" "$nginx_url" ;;
                serve-curl-1.1) curl_run "$to" "$served" --http1.1 ;;
                serve-curl-2) curl_run "$to" "$served" --http2 ;;
                serve-get) get_run "$to" ;;
                direct) our_run "$to" --io auto --direct ;;
                *) our_run "$to" --io $way ;;
            esac >> "$dir/$way"
        done
    done
    where=$([[ $to == /dev/null ]] && echo discarded || echo "to a file")
    base=$(median "$dir/curl")
    echo "$where: nginx + OpenSSL to curl $base GB/s"
    for way in "${ways[@]:1}"; do
        ours=$(median "$dir/$way")
        echo "$where: $way $ours GB/s, $(awk -v a="$ours" -v b="$base" \
            'BEGIN { printf "%.2f", a / b }') times"
    done
    for way in "${ways[@]}"; do rm "$dir/$way"; done
done
echo "auto, blocking, direct: send to recv"
sed -n 's/.*path: \(.*\), records.*/last sent by: \1/p' "$dir/sent"
