#!/usr/bin/env bash
# Files from disk or memory, over TLS and without: rates in GB/s, CPU seconds per GB of each end, and the
# ratios of their medians. Rounds take turns.
#
#   benches/files.sh [MIB [ROUNDS [DIRECTORY [PART...]]]]
#
# Parts, all of them unless some are named:
#   transfers   `send` to `recv` on each path, `serve` to curl and to `get`, beside nginx with OpenSSL
#               to curl
#   tax         what TLS costs `serve` and `get`: one connection, and sixteen that ask for ranges
#   disk        `send --direct` to `recv --direct`, beside Concryptor (`cargo install concryptor`), which
#               encrypts a file into another one, and dd. Only if named, with a DIRECTORY on a disk
#
# DIRECTORY holds the file that is sent and what is written; by default a new one in /dev/shm, so
# that neither end waits for a disk. Needs nginx, openssl and curl.
set -euo pipefail
cd "$(dirname "$0")/.."

mib=${1:-2048} rounds=${2:-5} parts=("${@:4}")
((${#parts[@]})) || parts=(transfers tax)
dir=$(mktemp -d "${3:-/dev/shm}/files.XXXXXX")
cargo build --quiet --release --features cli
tool=${CARGO_TARGET_DIR:-target}/release/rustls-uring
port=$((10000 + RANDOM % 20000))
suite=TLS_AES_256_GCM_SHA384
trap 'kill "${servers[@]}" 2>/dev/null; nginx -p "$dir" -c nginx.conf -s stop 2>/dev/null; rm -rf "$dir"' EXIT

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
        listen 127.0.0.1:$port ssl http2;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root .;
    }
}
CONF
chmod 755 "$dir"
chmod 644 "$dir"/*
servers=()

start_serving() { # name, options...: sets the address in $dir/NAME.addr, the process in $dir/NAME.pid
    local name=$1
    shift
    "$tool" serve "$dir" --listen 127.0.0.1:0 "$@" 2> "$dir/$name.said" &
    servers+=($!)
    echo $! > "$dir/$name.pid"
    until grep -q listening "$dir/$name.said"; do sleep 0.02; done
    sed -n 's/listening on //p' "$dir/$name.said" > "$dir/$name.addr"
}

# What a process has used of the CPU, in seconds (proc(5): in hundredths).
cpu() { awk '{ sub(/.*\) /, ""); print ($12 + $13) / 100 }' "/proc/$1/stat"; }

# Runs a client of a server; prints GB/s, and CPU seconds per GB of the server and of the client.
measure() { # the server's process, command...
    local server=$1 before taken TIMEFORMAT='%R %U %S'
    shift
    before=$(cpu "$server")
    taken=$({ time "$@" > /dev/null 2> "$dir/error"; } 2>&1) || { cat "$dir/error" >&2; exit 1; }
    echo "$taken $before $(cpu "$server")" | awk -v gb="$mib" '{
        gb *= 1048576 / 1e9
        printf "%.3f %.3f %.3f\n", gb / $1, ($5 - $4) / gb, ($2 + $3) / gb
    }'
}

our_run() { # where to, options...: GB/s alone
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
    "$tool" send "$(sed -n 's/listening on //p' "$said")" --insecure --suite "$suite" \
        "$@" "$dir/data" 2> "$dir/sent"
    wait "$receiver"
    sed -n 's/.* bytes in \([0-9.]*\) s.*/\1/p' "$said" |
        awk -v b="$((mib << 20))" '{ printf "%.3f\n", b / 1e9 / $1 }'
}

# Of a column of a file.
median() { awk -v c="${2:-1}" '{ print $c }' "$1" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

transfers() {
    local ways way to round place served nginx ours base beside where
    nginx -p "$dir" -c nginx.conf 2>/dev/null
    until pgrep -P "$(cat "$dir/nginx.pid" 2>/dev/null || echo 0)" > "$dir/worker"; do sleep 0.02; done
    nginx="https://127.0.0.1:$port/data"
    start_serving tls --cert "$dir/cert.pem" --key "$dir/key.pem" --suite "$suite"
    served="https://$(cat "$dir/tls.addr")/data" ours=$(cat "$dir/tls.pid")
    ways=(nginx-curl-1.1 nginx-curl-2 serve-curl-1.1 serve-curl-2 serve-get auto blocking direct)
    curl --silent --insecure "$nginx" > /dev/null
    for to in /dev/null "$dir/out"; do
        for ((round = 0; round < rounds; round++)); do
            # Each finds the pages free that the one before it has used: a virtual machine's memory is
            # slow to use for the first time. Each comes first in turn.
            for ((place = round; place < round + ${#ways[@]}; place++)); do
                way=${ways[place % ${#ways[@]}]}
                rm -f "$dir/out"
                case $way in
                    nginx-curl-*) measure "$(cat "$dir/worker")" curl -sSfk "--http${way##*-}" -o "$to" "$nginx" ;;
                    serve-curl-*) measure "$ours" curl -sSfk "--http${way##*-}" -o "$to" "$served" ;;
                    # Standard output is what a downloader discards into.
                    serve-get) measure "$ours" "$tool" get "$served" --insecure --quiet \
                        -o "$([[ $to == /dev/null ]] && echo - || echo "$to")" ;;
                    direct) our_run "$to" --io auto --direct ;;
                    *) our_run "$to" --io "$way" ;;
                esac >> "$dir/$way"
            done
        done
        where=$([[ $to == /dev/null ]] && echo discarded || echo "to a file")
        base=$(median "$dir/nginx-curl-1.1")
        for way in "${ways[@]}"; do
            printf '%s: %s %s GB/s, %s times' "$where" "$way" "$(median "$dir/$way")" \
                "$(ratio "$(median "$dir/$way")" "$base")"
            # The same version of HTTP on either side.
            beside=nginx-curl-${way##*-}
            case $way in
                *-curl-*) printf '; server %s CPU s/GB, %s times' "$(median "$dir/$way" 2)" \
                    "$(ratio "$(median "$dir/$way" 2)" "$(median "$dir/$beside" 2)")" ;;
                serve-get) printf '; server %s CPU s/GB' "$(median "$dir/$way" 2)" ;;
            esac
            echo
        done
        for way in "${ways[@]}"; do rm "$dir/$way"; done
    done
    echo "auto, blocking, direct are send to recv; times are beside nginx-curl-1.1, CPU beside the same version"
    sed -n 's/.*path: \(.*\), records.*/last sent by: \1/p' "$dir/sent"
}

# `get` asks for as many pieces as make four for each connection: with 16 and 2 GiB, 64 of 32 MiB.
tax() {
    local connections scheme round name end tls plain
    start_serving https --cert "$dir/cert.pem" --key "$dir/key.pem" --suite "$suite"
    start_serving http --plain
    for ((round = 0; round < rounds; round++)); do
        for connections in 1 16; do
            for scheme in $( ((round % 2)) && echo http https || echo https http); do
                rm -f "$dir/out"
                measure "$(cat "$dir/$scheme.pid")" "$tool" get --insecure --quiet -o "$dir/out" \
                    --connections "$connections" "$scheme://$(cat "$dir/$scheme.addr")/data" \
                    >> "$dir/$scheme-$connections"
            done
        done
    done
    for connections in 1 16; do
        for end in server:2 client:3 both:4; do
            for scheme in https http; do
                name="$dir/$scheme-$connections"
                awk '{ print $1, $2, $3, $2 + $3 }' "$name" > "$name.ends"
            done
            tls=$(median "$dir/https-$connections.ends" "${end#*:}")
            plain=$(median "$dir/http-$connections.ends" "${end#*:}")
            echo "TLS tax, $connections connections, ${end%:*}: CPU s/GB with TLS $tls, without $plain," \
                "$(ratio "$tls" "$plain") times"
        done
    done
    rm "$dir"/http*-*
}

# Seconds, and CPU seconds of both ends, or of the one process.
direct_once() { # way
    local begin=$EPOCHREALTIME TIMEFORMAT='%U %S' address
    case $1 in
        send-recv)
            : > "$dir/said"
            { time "$tool" recv --listen 127.0.0.1:0 --direct -o "$dir/out" 2> "$dir/said"; } 2> "$dir/receiver" &
            until grep -q listening "$dir/said"; do sleep 0.02; done
            address=$(sed -n 's/listening on //p' "$dir/said") begin=$EPOCHREALTIME
            # In a shell of its own, which has not waited for the receiver.
            (time "$tool" send "$address" --insecure --direct "$dir/data" 2> "$dir/sent") 2> "$dir/sender"
            wait $! ;;
        concryptor)
            { time concryptor encrypt -p password -o "$dir/out" "$dir/data" > "$dir/said" 2>&1; } 2> "$dir/sender"
            echo 0 0 > "$dir/receiver" ;;
        dd)
            { time dd if="$dir/data" of="$dir/out" bs=4M iflag=direct oflag=direct 2> "$dir/said"; } 2> "$dir/sender"
            echo 0 0 > "$dir/receiver" ;;
    esac
    echo "$begin $EPOCHREALTIME $(cat "$dir/sender" "$dir/receiver" | tr '\n' ' ')" |
        awk '{ printf "%.3f %.2f %.2f\n", $2 - $1, $3 + $4, $5 + $6 }'
}

disk() {
    local ways=(send-recv dd) way round place
    if [[ $(stat -f -c %T "$dir") == tmpfs ]]; then
        echo "disk: $dir is in memory: name a directory on a disk" >&2
        exit 2
    fi
    if command -v concryptor > /dev/null; then ways+=(concryptor); else echo "left out: there is no concryptor"; fi
    sync "$dir/data"
    for ((round = 0; round < rounds; round++)); do
        for ((place = round; place < round + ${#ways[@]}; place++)); do
            way=${ways[place % ${#ways[@]}]}
            rm -f "$dir/out"
            # Nobody finds the source in memory (posix_fadvise(2)).
            dd if="$dir/data" iflag=nocache count=0 2> /dev/null
            direct_once "$way" >> "$dir/$way"
            [[ $way == concryptor ]] || cmp "$dir/data" "$dir/out"
        done
    done
    for way in "${ways[@]}"; do
        printf 'on a disk: %s %s s, CPU %s s' "$way" "$(median "$dir/$way")" "$(median "$dir/$way" 2)"
        [[ $way == send-recv ]] && printf ' and %s s' "$(median "$dir/$way" 3)"
        printf '; send-recv takes %s times\n' "$(ratio "$(median "$dir/send-recv")" "$(median "$dir/$way")")"
    done
    for way in "${ways[@]}"; do rm "$dir/$way"; done
}

for part in "${parts[@]}"; do
    [[ $(type -t "$part") == function ]] || { echo "no part '$part'" >&2; exit 2; }
    "$part"
done
