# shellcheck shell=bash
# Makes sure that the packages of scripts/packages.txt are there: by apt where that is possible and wanted, else by
# looking for what they hold. Sourced after common.sh.
# shellcheck disable=SC2154  # program comes from there

packages_file=$(dirname "${BASH_SOURCE[0]}")/packages.txt

# packages_of GROUP...: lines "package probe optional|needed", each package once.
packages_of() {
  awk -v groups="$*" '
    BEGIN { count = split(groups, names, " "); for (i = 1; i <= count; i++) wanted[names[i]] = 1 }
    /^#/ || NF < 3 { next }
    { optional = sub(/\?$/, "", $1); if ($1 in wanted && !seen[$2]++) print $2, $3, optional ? "optional" : "needed" }
  ' "$packages_file"
}

# not_installed PACKAGE...: those that dpkg does not know as installed.
not_installed() {
  local package
  for package in "$@"; do
    if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      say "$package"
    fi
  done
}

# header_exists NAME: in CMAKE_PREFIX_PATH, CPATH or the system's folders, where Eigen and Debian keep theirs too.
header_exists() {
  local folder
  local IFS=':;'
  for folder in ${CMAKE_PREFIX_PATH:-} /usr /usr/local; do
    if [ -n "$folder" ] && { [ -e "$folder/include/$1" ] || [ -e "$folder/include/eigen3/$1" ] || [ -e "$folder/include/x86_64-linux-gnu/$1" ]; }; then
      return 0
    fi
  done
  for folder in ${CPATH:-} ${CPLUS_INCLUDE_PATH:-}; do
    [ -n "$folder" ] && [ -e "$folder/$1" ] && return 0
  done
  return 1
}

# probe WHAT: whether it is there (the forms that packages.txt explains).
probe() {
  case "$1" in
    compiler) [ -n "$(find_compiler)" ] ;;
    pip) [ -n "$(find_python)" ] ;;
    command:*) command -v "${1#command:}" >/dev/null ;;
    header:*) header_exists "${1#header:}" ;;
    *) fail "$packages_file: unknown probe '$1'" ;;
  esac
}

# describe PACKAGE WHAT: for the list of what is missing.
describe() {
  case "$2" in
    compiler) say "a C++ compiler (g++ 12 or later)" ;;
    pip) say "python3 with pip" ;;
    command:*) say "${2#command:}" ;;
    header:*) say "$1 (${2#header:})" ;;
  esac
}

# install_commands PREFIX PACKAGE...: the line that is shown, and run as shown. PREFIX is "sudo" or empty. An update that
# fails in part (somebody's third-party list) is no reason to stop: the installation shows whether it mattered. On a
# machine that has just started, its own automatic updates may hold the lock for a while.
install_commands() {
  local sudo=${1:+$1 }
  shift
  say "${sudo}apt-get update; ${sudo}env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $*"
}

# ensure_packages MODE LOG GROUP...: MODE is "install" or "no-install". Exits 2 with one message where something stays missing.
ensure_packages() {
  local mode=$1 log=$2
  shift 2
  if [ "$mode" = install ] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_packages "$log" "$@"
  else
    probe_packages "$@"
  fi
}

install_packages() {
  local log=$1 sudo='' line missing
  shift
  # shellcheck disable=SC2046
  missing=$(not_installed $(packages_of "$@" | cut -d ' ' -f 1))
  if [ -z "$missing" ]; then
    say "all packages are installed"
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    sudo=sudo
  fi
  # shellcheck disable=SC2086
  line=$(install_commands "$sudo" $missing)
  if [ -n "$sudo" ] && ! may_use_sudo; then
    fail "packages are missing, and installing them needs root; run this, then ./$program again (or ./$program --no-install, where CMAKE_PREFIX_PATH has them): $line"
  fi
  say "$line"
  run_logged "$log" bash -c "$line" || fail "apt-get failed; where these packages come from elsewhere: ./$program --no-install"
}

# A person at a terminal can be asked for a password; elsewhere sudo must work without.
may_use_sudo() {
  command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }
}

probe_packages() {
  local package what need missing='' packages=''
  while read -r package what need; do
    if ! probe "$what"; then
      if [ "$need" = optional ]; then
        say "without $(describe "$package" "$what"), which is optional"
      else
        missing="$missing${missing:+, }$(describe "$package" "$what")"
        packages="$packages $package"
      fi
    fi
  done < <(packages_of "$@")
  [ -n "$missing" ] || return 0
  fail "missing: $missing. Install them (Debian and Ubuntu:$packages), or point CMAKE_PREFIX_PATH to where they are"
}
