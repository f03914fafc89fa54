#!/bin/bash
# Run faas-cli again while the builder is busy, which it does not do by itself:
#   retry.sh faas-cli publish --remote-builder http://127.0.0.1:8080/ --payload-secret FILE
# Functions that were built already come from the cache.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for _ in $(seq 60); do
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    # faas-cli shows no Retry-After: 0.17.4 and older show the answer's text, newer ones its code.
    if [ "$status" -eq 0 ] || ! grep -qE 'Concurrent request limit|status code 429' "$log"; then
        break
    fi
    echo "the builder is busy: trying again in ${RETRY_DELAY:=5} s" >&2
    sleep "$RETRY_DELAY"
done
exit "$status"
