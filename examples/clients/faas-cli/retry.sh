#!/bin/bash
# Run faas-cli again while the builder is busy, which it does not do by itself:
#   retry.sh faas-cli publish --remote-builder http://127.0.0.1:8080/ --payload-secret FILE
# `publish` and `build` are repeated for the functions that were refused, and no others. `up` deploys
# in the end, so it is repeated for all of them, one after another; what was built is in the cache.
# It gives up after RETRY_ROUNDS (60) rounds in a row in which no function was built.
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: $0 faas-cli publish …" >&2; exit 2; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
command=("$@")
idle=0

# Functions that faas-cli began, and of which it says neither success nor failure.
refused() {
    local name date='[0-9/]+ [0-9:]+'
    sed -nE 's/^.*\] > Building (.+)\.$/\1/p' "$log" | sort -u | while read -r name; do
        grep -qE "^($date ${name//./\\.} success building and pushing image: |- (.*: )?${name//./\\.} failure while building)" "$log" ||
            echo "${name//./\\.}"
    done
}

# The command for these functions: --regex in the place of its own --filter or --regex.
only() {
    local skip=0 argument
    command=()
    for argument in "${@:2}"; do
        case $skip$argument in
        1*) skip=0 ;;
        0--filter | 0--regex) skip=1 ;;
        0--filter=* | 0--regex=*) ;;
        *) command+=("$argument") ;;
        esac
    done
    command+=(--regex "^($(tr '\n' '|' <<<"$1" | sed 's/|$//'))\$")
}

while true; do
    "${command[@]}" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    # faas-cli shows no Retry-After: 0.17.4 and older show the answer's text, newer ones its code.
    if [ "$status" -eq 0 ] || ! grep -qE '^- .*(Concurrent request limit|status code 429)' "$log"; then
        break
    fi
    failed=${failed:-}$(grep -E '^- (.*: )?[^ ]+ failure while building' "$log")
    if grep -q ' success building and pushing image: ' "$log"; then idle=0; else idle=$((idle + 1)); fi
    if [ "$idle" -ge "${RETRY_ROUNDS:-60}" ]; then
        break
    fi
    names=$(refused)
    if [ -z "$names" ]; then
        break
    elif [ "${2:-}" = up ]; then
        command=("$@" --parallel 1)
    else
        only "$names" "$@"
    fi
    echo "the builder is busy: trying again in ${RETRY_DELAY:=5} s" >&2
    sleep "$RETRY_DELAY"
done
# A function that failed in an earlier round was not built again.
if [ "$status" -eq 0 ] && [ -n "${failed:-}" ] && [ "${2:-}" != up ]; then
    printf '%s\n' "$failed" >&2
    status=1
fi
exit "$status"
