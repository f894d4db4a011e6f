# shellcheck shell=bash disable=SC2034 # the variables are used where this file is sourced
# What scripts/demo and scripts/test share: saying what happens, installing the Debian packages
# that are missing, and building the module out of tree. To be sourced by bash with "set -eu".

top=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
python=/usr/bin/python3 # Debian's, for which Debian's python3-* packages are
export LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

# Package names are the same on Debian 12 and 13. The web server is apache2-bin, the program and
# its modules alone: the package apache2 would also start a system service on port 80.
packages_build=(gcc libc6-dev make autoconf automake libtool pkg-config apache2-dev apache2-bin
                libcurl4-openssl-dev libjansson-dev libssl-dev)
packages_simulator=(python3 python3-aiohttp)

say() { printf '%s\n' "$@"; }

die() {
  say "$@" >&2
  exit 1
}

# --- Packages ------------------------------------------------------------------------------------

is_installed() {
  dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing_packages() {
  local package
  for package; do
    is_installed "$package" || printf '%s\n' "$package"
  done
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

can_become_root() { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL="$LC_ALL" \
    apt-get -q -o DPkg::Lock::Timeout=120 "$@" </dev/null 2>&1
}

# Install those of the named packages that are missing; ask nobody when none is.
install_missing() {
  local missing output
  if ! command -v dpkg-query >/dev/null; then
    say "This is not Debian, so nothing is installed for you. Debian's names of what is needed: $*"
    return 0
  fi
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  can_become_root ||
    die "Packages are missing, and there is neither root nor sudo to install them." \
        "Ask somebody who may to run: apt-get install --no-install-recommends ${missing[*]}"
  say "Installing what is missing, which may take some minutes: ${missing[*]}"
  output=$(apt_get update) || say "The package lists could not all be fetched; trying with what is there."
  output+=$(without_services apt_get install -y --no-remove --no-install-recommends "${missing[@]}") ||
    die "$output" "" "These packages could not be installed: ${missing[*]}"
  disable_services_of "${missing[@]}"
}

# Some packages come with a system service, but only their programs are wanted: while the command
# runs, Debian's packages start none.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
  fi
  "$@"
)

# Nor do those just installed start with the next boot.
disable_services_of() {
  local package
  for package; do
    case $package in
      redis-server | memcached)
        as_root deb-systemd-helper disable "$package.service" >/dev/null 2>&1 || true
        as_root update-rc.d "$package" disable >/dev/null 2>&1 || true
        ;;
    esac
  done
}

# --- Building ------------------------------------------------------------------------------------

# Makefile.in is what autoreconf writes last: without it, an earlier one was interrupted.
generate_configure() {
  { [ -f "$top/configure" ] && [ -f "$top/Makefile.in" ]; } || (cd "$top" && autoreconf -fi)
}

# A directory keeps its configuration while the arguments and the rules for building are the same:
# make would not compile again for other flags.
configure_in() {
  local dir=$1 wanted
  shift
  wanted="$* $(cat "$top/configure.ac" "$top/Makefile.am" | cksum)"
  if [ -f "$dir/Makefile" ] && [ "$(cat "$dir/configured-with" 2>/dev/null)" = "$wanted" ]; then
    return 0
  fi
  rm -rf "$dir" && mkdir -p "$dir" &&
    (cd "$dir" && "$top/configure" --quiet "$@") &&
    printf '%s\n' "$wanted" >"$dir/configured-with"
}

# Build the module in the directory $1, a place below build/, with configure's arguments after it.
# Does only what is due. Two at once wait for each other: both may have to generate configure.
build_in() {
  local dir=$1
  if [ -f "$top/config.status" ]; then
    say "This checkout is configured in place, which builds in other directories cannot share." \
        "Run 'make distclean' in $top, then try again."
    return 1
  fi
  if ! mkdir -p "$top/build" || [ ! -w "$top/build" ]; then
    say "$top/build belongs to somebody else. Remove it or run this as its owner."
    return 1
  fi
  (
    flock 9
    generate_configure && configure_in "$@" && make -C "$dir" -s -j"$(nproc)"
  ) 9>"$top/build/.lock"
}
