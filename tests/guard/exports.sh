#!/bin/sh
# The module shows httpd its module structure and nothing else.
set -u
. "$(dirname "$0")/tap.sh"
: "${builddir:=$srcdir}"

module=$builddir/.libs/mod_auth_bitbucket.so
[ -f "$module" ]
ok $? "the module is built" "$module is not there"
# Sanitizers add symbols of their own, all with two underscores in front.
is_empty "$(nm -D --defined-only "$module" | awk '{print $3}' |
    grep -vE '^(auth_bitbucket_module$|__)')" "only auth_bitbucket_module is exported"
nm -D --defined-only "$module" | grep -q ' auth_bitbucket_module$'
ok $? "auth_bitbucket_module is exported"
plan
