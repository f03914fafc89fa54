#!/bin/sh
# Build a directory with tar, openssl and curl, and push it: build.sh DIR IMAGE
set -eu
[ $# -eq 2 ] || { echo "usage: $0 DIR IMAGE" >&2; exit 2; }
url=${OPENFAAS_REMOTE_BUILDER:-http://127.0.0.1:8080}
url=${url%/} url=${url%/build} # old versions of faas-cli want it with /build
secret=${OPENFAAS_PAYLOAD_SECRET:-.run/payload-secret}

# HMAC-SHA256 of standard input (RFC 2104), keyed by the file $secret. Not `openssl dgst -hmac`: that
# shows the key to all users of this machine, in the list of processes. printf is the shell's own.
hmac() {
    key=$(tr -d '\r\n' <"$secret" | od -An -v -tx1)
    # A word is a byte.
    [ "$(echo "$key" | wc -w)" -le 64 ] ||
        key=$(tr -d '\r\n' <"$secret" | openssl dgst -sha256 -binary | od -An -v -tx1)
    { pad 54; cat; } | openssl dgst -sha256 -binary | { pad 92; cat; } |
        openssl dgst -sha256 | sed 's/.* //'
}
pad() { # the key, filled up to 64 bytes with zeros, each byte XOR $1
    # shellcheck disable=SC2086
    set -- "$1" $key
    with=$1 count=0
    shift
    while [ "$count" -lt 64 ]; do
        # shellcheck disable=SC2059
        printf "\\$(printf %o $((0x${1:-0} ^ with)))"
        [ $# -eq 0 ] || shift
        count=$((count + 1))
    done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$1" "$work/context"
printf '{"image": "%s"}' "$2" >"$work/com.openfaas.docker.config"
tar -C "$work" -cf "$work/req.tar" com.openfaas.docker.config context
signature=$(hmac <"$work/req.tar")

# A busy builder (429) is asked again when it says, by Retry-After. A failed build is not: streamed,
# it answers 200 and says so in its last line.
curl -sS -N --retry 60 --fail-with-body --request POST --upload-file "$work/req.tar" \
    -H "X-Build-Signature: sha256=$signature" \
    -H 'Content-Type: application/octet-stream' -H 'Accept: application/x-ndjson' \
    "$url/build" | tee "$work/log"
tail -n 1 "$work/log" | grep -q '"status":"success"'
