#!/bin/sh
# Every door compiles alone, and those of the core without httpd.
set -u
. "$(dirname "$0")/tap.sh"
: "${CC:=cc}" "${CORE_CPPFLAGS:=}" "${HTTPD_CPPFLAGS:=}"
cd "$srcdir" || exit 1

knows_httpd() {
    case $1 in
    include/abb_api_token.h | include/abb_ask.h | include/abb_authn.h | include/abb_callback.h | include/abb_rules.h | include/abb_config.h | include/abb_endpoints.h | include/abb_flow.h | include/mod_auth_bitbucket.h | include/abb_refusal.h | \
        include/abb_background.h | include/abb_manager.h | include/abb_memory.h | include/abb_news.h | include/abb_pass.h | include/abb_selfcheck.h | include/abb_preserve.h | include/abb_request.h | include/abb_status.h | include/abb_visit.h) return 0 ;;
    esac
    return 1
}

for header in include/*.h; do
    flags=$CORE_CPPFLAGS
    if knows_httpd "$header"; then
        flags="$CORE_CPPFLAGS $HTTPD_CPPFLAGS"
    fi
    # shellcheck disable=SC2086 # flags are several words
    found=$(echo "#include \"$(basename "$header")\"" |
        $CC -std=gnu11 -fsyntax-only -Wall -Wextra -Wno-unused-parameter -Werror $flags -x c - 2>&1)
    ok $? "$header compiles alone" "$found"
done
plan
