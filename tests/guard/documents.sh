#!/bin/sh
# What the documents name is there: tests, and pages with their headings.
set -u
. "$(dirname "$0")/tap.sh"
cd "$srcdir" || exit 1

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
pages='README.md CONTRIBUTING.md docs/*.md docs/recipes/*.md'

# shellcheck disable=SC2086 # the pages are several words
grep -ohE '`test_[a-z0-9_]+`' $pages | tr -d '`' | sort -u >"$scratch/named"
grep -rhoE '^( *async)? *def test_[a-z0-9_]+' tests scripts/tests --include='*.py' | sed 's/.*def //' | sort -u >"$scratch/tests"

[ -s "$scratch/named" ]
ok $? "tests are named in the documents"
is_empty "$(comm -23 "$scratch/named" "$scratch/tests")" "every test that a document names is there"

# A heading as an anchor: lower case, spaces as dashes, no other punctuation.
anchors() {
    grep -E '^#+ ' "$1" | sed 's/^#* //; s/`//g' | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}
broken() {
    # shellcheck disable=SC2086
    for page in $pages; do
        grep -oE '\]\([^)#: ]*(#[^) ]*)?\)' "$page" | sed 's/^](//; s/)$//' | sort -u | while read -r link; do
            [ -n "$link" ] || continue
            file=${link%%#*}
            target=$page
            [ -z "$file" ] || target=$(dirname "$page")/$file
            if [ ! -e "$target" ]; then
                echo "$page: $link"
            elif [ "$link" != "$file" ] && ! anchors "$target" | grep -qxF -e "${link#*#}"; then
                echo "$page: no heading $link"
            fi
        done
    done
}
is_empty "$(broken)" "links between the documents lead to a page and a heading"

# tests/httpd/test_documents.py has httpd read the blocks that say apache; so all of them must say it.
unlabelled() {
    # shellcheck disable=SC2086
    awk 'FNR == 1 {inside = 0}
         /^ *```/ {inside = !inside; bare = inside && /^ *``` *$/; next}
         bare && /^ *(AuthType|Require|AuthBitbucket[A-Za-z]*|LoadModule) / {print FILENAME ":" FNR ": " $0}
         !inside && /^    +(AuthType|AuthBitbucket[A-Za-z]*|LoadModule|<(Location|Directory|VirtualHost)[A-Za-z]*) / {
             print FILENAME ":" FNR ": " $0}' $pages
}
is_empty "$(unlabelled)" "blocks of configuration are marked as apache"

# A row of a table cannot be broken.
is_empty "$(awk 'length($0) > 120 && !/^\|/ {print FILENAME ":" FNR}' docs/recipes/*.md)" "lines of a recipe fit a terminal"
plan
