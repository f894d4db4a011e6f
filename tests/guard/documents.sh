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

# Pairs of a file below tests and a test of it, as scripts/run_faults.py reads them: in a row of a table all names
# behind the file; in a sentence those that stand at it.
pairs() {
    # shellcheck disable=SC2086
    awk 'function look(text,   at, name) {
             file = ""; at = 0
             while (match(text, /`[^`]*`/)) {
                 name = substr(text, RSTART + 1, RLENGTH - 2)
                 if (name ~ /^[a-z]+\/(t|test)_[a-z0-9_]+\.(c|py)$/) {
                     file = name
                     print file
                 } else if (text !~ /^\|/ && at && substr(text, 1, RSTART - 1) !~ /^([ ,]|and|or)*$/) {
                     file = ""
                 } else if (name !~ /^[a-z][a-z0-9_]+$/) {
                     file = ""
                 } else if (file != "") {
                     print file, name
                 }
                 text = (text ~ /^\|/ ? "|" : "") substr(text, RSTART + RLENGTH)
                 at = 1
             }
         }
         FNR == 1 || /^ *$/ || /^ *([-*] |\||```)/ {look(block); block = ""}
         {block = block == "" ? $0 : block " " $0}
         END {look(block)}' $pages
}
# Tests of a contract get the name of their engine in front of their own.
tests_of() {
    for file in unit/t_*.c; do
        echo "$file"
        sed -n "s|^static void \([a-z0-9_]*\)(void \*\*.*|$file \1|p" "$file"
        for engine in $(sed -n '/engine_maker_t engines/,/;/s/^ *{"\([a-z_]*\)".*/\1/p' "$file"); do
            sed -n "s|^    [A-Z]*(\([a-z0-9_]*\)).*|$file ${engine}_\1|p" unit/contract.c
        done
    done
    for file in */test_*.py; do
        echo "$file"
        sed -n -E "s|^( *async)? *def (test_[a-z0-9_]+).*|$file \2|p" "$file"
    done
}
pairs | sort -u >"$scratch/pairs"
(cd tests && tests_of) | sort -u >"$scratch/all"
grep -q '^unit/.* ' "$scratch/pairs" && grep -q '^httpd/.* ' "$scratch/pairs"
ok $? "tests are named with their files in the documents"
is_empty "$(comm -23 "$scratch/pairs" "$scratch/all")" "every file of tests that a document names is there, and has the test named with it"

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
