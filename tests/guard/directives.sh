#!/bin/sh
# Every directive has its entry in the manual, and every entry its directive.
set -u
. "$(dirname "$0")/tap.sh"
cd "$srcdir" || exit 1

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
grep -ohE 'AP_INIT_[A-Z0-9_]+\("[A-Za-z]+"' src/*.c | sed 's/.*("//; s/"//' | sort >"$scratch/code"
sed -n 's/^## \(AuthBitbucket[A-Za-z]*\)$/\1/p' docs/directives.md | sort >"$scratch/manual"

[ -s "$scratch/code" ]
ok $? "directives are found in the code"
is_empty "$(uniq -d "$scratch/code")" "no directive is defined twice"
is_empty "$(comm -23 "$scratch/code" "$scratch/manual")" "every directive is in docs/directives.md"
is_empty "$(comm -13 "$scratch/code" "$scratch/manual")" "docs/directives.md has no directive that is not there"
incomplete() {
    awk '/^## AuthBitbucket/ {name = $2; seen[name] = ""}
         /^\| (Description|Syntax|Default|Context|Override) / {seen[name] = seen[name] $2 " "}
         END {for (n in seen) if (seen[n] != "Description Syntax Default Context Override ") print n ": " seen[n]}' \
        docs/directives.md
}
is_empty "$(incomplete)" "every entry has Description, Syntax, Default, Context, Override"
used_elsewhere() {
    grep -ohE '\bAuthBitbucket[A-Za-z]+' README.md docs/*.md docs/recipes/*.md | sort -u | comm -23 - "$scratch/code"
}
is_empty "$(used_elsewhere)" "README and docs name no directive that is not there"
plan
