#!/bin/sh
# No arrow points up: a room includes only rooms of lower floors. The floors are
# those of docs/architecture.md.
set -u
. "$(dirname "$0")/tap.sh"
cd "$srcdir" || exit 1

floor_of() {
    case $1 in
    log | error | clock) echo 0 ;;
    text | crypto | account | authorities | cookie | pack | offload | gate | traffic | throttle | counters) echo 1 ;;
    record | ticket | store | http | reply | page | secret | form | credential) echo 2 ;;
    store_file | session | bitbucket | authz | request | identity | hub) echo 3 ;;
    login | recheck | config | refusal | news | flow | draft | index) echo 4 ;;
    visit | memory | background) echo 5 ;;
    ask | interface | preserve | pass | api_token | selfcheck) echo 6 ;;
    authn | rules | callback) echo 7 ;;
    endpoints | status | manager) echo 8 ;;
    mod_auth_bitbucket) echo 9 ;;
    *) echo unknown ;;
    esac
}

# The room a file belongs to; some rooms have several files.
room_of() {
    name=$(basename "$1")
    # The public header is the door of the room that keeps what it promises.
    [ "$name" != mod_auth_bitbucket.h ] || name=abb_interface.h
    name=${name%.[ch]}
    name=${name#abb_}
    case $name in
    store_shm | store_shm_segment | store_shm_links | store_shm_import | store_shm_check) echo store ;;
    store_near | store_socache | store_socache_line) echo store ;;
    store_file_key | store_file_internal) echo store_file ;;
    memory_flush | memory_condition | memory_internal | memory_remote) echo memory ;;
    bitbucket_meaning | bitbucket_round | bitbucket_probe | bitbucket_internal) echo bitbucket ;;
    config_directives | config_site | config_hub | config_cache | config_tree | config_internal) echo config ;;
    selfcheck_tree | selfcheck_dump | selfcheck_verify | selfcheck_warnings | selfcheck_online | selfcheck_internal) echo selfcheck ;;
    status_figures | status_text | status_page | status_internal) echo status ;;
    *) echo "$name" ;;
    esac
}

offenders() {
    for file in mod_auth_bitbucket.c src/*.c src/*.h include/*.h; do
        room=$(room_of "$file")
        floor=$(floor_of "$room")
        [ "$floor" != unknown ] || echo "$file: room '$room' stands on no floor"
        sed -n 's/^#include "\([^"]*\)".*/\1/p' "$file" | while read -r included; do
            below=$(room_of "$included")
            [ "$below" = "$room" ] && continue
            [ "$(floor_of "$below")" -lt "$floor" ] 2>/dev/null ||
                echo "$file (floor $floor) includes $included (floor $(floor_of "$below"))"
        done
    done
}

# The floor that a file's first lines name is the floor it stands on.
misnamed() {
    for file in src/*.c include/*.h; do
        named=$(sed -n '1,4s/.*(floor \([0-9]\)).*/\1/p' "$file" | head -1)
        [ -z "$named" ] || [ "$named" = "$(floor_of "$(room_of "$file")")" ] ||
            echo "$file says floor $named"
    done
}

# The core is compiled without httpd's include path; a header could still creep in by another way.
httpd_in_core() {
    sed -n '/^libcore_la_SOURCES/,/[^\\]$/p' Makefile.am | tr ' \t\\' '\n\n\n' | grep '\.c$' |
        while read -r file; do
            grep -nE '#include <(httpd|http_|ap_|mod_|util_|scoreboard)' "$file" /dev/null
        done
}

is_empty "$(offenders)" "rooms include only rooms of lower floors"
is_empty "$(misnamed)" "files name the floor they stand on"
# The engine on httpd's caches knows a struct of theirs; it is tested without httpd, so it links nothing of it.
httpd_in_engine() {
    grep -nE '#include <(httpd|http_|ap_|mod_|util_|scoreboard)' src/store_socache*.[ch] | grep -v '<ap_socache.h>'
}

is_empty "$(httpd_in_engine)" "the engine on httpd's caches knows their struct only"
is_empty "$(httpd_in_core)" "the core includes no header of httpd"
is_empty "$(grep -lE '#include <(curl|openssl|jansson)' mod_auth_bitbucket.c src/*.c include/*.h |
    grep -vE '^src/(http|crypto|reply)\.c$')" "libcurl, libcrypto and jansson are used in one file each"
plan
