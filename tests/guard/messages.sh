#!/bin/sh
# Every log line has a tag of its own that docs/messages.md explains.
set -u
. "$(dirname "$0")/tap.sh"
cd "$srcdir" || exit 1

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
grep -ohE 'ABB_LOGNO\([0-9]+\)' mod_auth_bitbucket.c src/*.c | tr -dc '0-9\n' | sort >"$scratch/code"
sed -n 's/^## ABB\([0-9]*\)$/\1/p' docs/messages.md | sort >"$scratch/manual"

[ -s "$scratch/code" ]
ok $? "tags are found in the code"
is_empty "$(grep -vE '^[0-9]{4}$' "$scratch/code")" "tags have four digits"
is_empty "$(uniq -d "$scratch/code")" "no tag is used twice"
is_empty "$(comm -23 "$scratch/code" "$scratch/manual")" "every tag is in docs/messages.md"
is_empty "$(comm -13 "$scratch/code" "$scratch/manual")" "docs/messages.md has no tag that is not there"
# A line that is written in one place for two logs is called `tagged`, and has its tag where it is made.
untagged() {
    awk '/ap_log_r?error\(/ {open = 1; text = ""; at = FILENAME ":" FNR}
         open {text = text $0}
         open && /;/ {if (text !~ /ABB_LOGNO|"%s", tagged/) print at; open = 0}' mod_auth_bitbucket.c src/*.c
}
is_empty "$(untagged)" "every log line has a tag"
plan
