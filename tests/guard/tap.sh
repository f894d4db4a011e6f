# Sourced by the guards: prints their findings as TAP.
# shellcheck shell=sh
: "${srcdir:=$(cd "$(dirname "$0")/../.." && pwd)}"
number=0

# ok CONDITION-STATUS NAME [DETAILS]
ok() {
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2"
        printf '%s\n' "${3:-}" | sed 's/^/# /'
    fi
}

plan() {
    echo "1..$number"
}

# is_empty TEXT NAME: a list of offenders must be empty.
is_empty() {
    [ -z "$1" ]
    ok $? "$2" "$1"
}
