#!/usr/bin/env bash
# The checks of the machine and the installation of packages, on machines made of stand-ins.
# shellcheck source=tests/scripts/harness.sh
. "$(dirname "${BASH_SOURCE[0]}")/harness.sh"

# A small script that does what ./quickstart does first.
mkdir "$scratch/checkout"
cp -r "$repository/scripts" "$scratch/checkout/"
cat >"$scratch/checkout/probe" <<'SCRIPT'
#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. scripts/common.sh
. scripts/install.sh
require_platform "${CPUINFO:-/proc/cpuinfo}"
ensure_packages "$1" packages.log build fetch
require_compiler
echo "went on with $CXX"
SCRIPT
chmod +x "$scratch/checkout/probe"
probe=$scratch/checkout/probe
echo "flags : fpu sse2 avx avx2 fma f16c bmi1 bmi2 movbe abm" >"$scratch/modern"
echo "flags : fpu sse2 avx" >"$scratch/old"
export CPUINFO=$scratch/modern
unset CXX PYTHON CMAKE_PREFIX_PATH CPATH CPLUS_INCLUDE_PATH DEBIAN_FRONTEND

compiler() { # NAME GNUC
  stand_in "$1" <<SCRIPT
echo "#define __GNUC__ $2"
SCRIPT
}
# Debian with everything but two packages, whose apt-get notes how it is called.
debian_without() {
  stand_in dpkg-query <<SCRIPT
case " $* " in *" \${*: -1} "*) exit 1 ;; *) printf installed ;; esac
SCRIPT
  stand_in apt-get <<'SCRIPT'
note "apt-get $* frontend=${DEBIAN_FRONTEND:-none}"
SCRIPT
  compiler c++ 12
}
user() { # UID
  stand_in id <<SCRIPT
echo $1
SCRIPT
}

begin "macOS"
stand_in uname <<'SCRIPT'
[ "$1" = -s ] && echo Darwin || echo arm64
SCRIPT
on_machine "$probe" install
expect_status 2
expect_lines err 1
expect_in err "this is Darwin on arm64"

begin "another processor"
stand_in uname <<'SCRIPT'
[ "$1" = -s ] && echo Linux || echo aarch64
SCRIPT
on_machine "$probe" install
expect_status 2
expect_in err "this is Linux on aarch64"

begin "no AVX2"
CPUINFO=$scratch/old on_machine "$probe" install
expect_status 2
expect_lines err 1
expect_in err "lacks: avx2 fma"

begin "everything is installed"
debian_without none
on_machine "$probe" install
expect_status 0
expect_in out "all packages are installed"
expect_in out "went on with c++"
expect_lines calls 0

begin "root installs what is missing: update first"
debian_without cmake libfmt-dev
user 0
on_machine "$probe" install
expect_status 0
expect_in out "apt-get update; env DEBIAN_FRONTEND=noninteractive apt-get"
expect_not_in out sudo
expect_lines calls 2
[ "$(head -n 1 "$scratch/calls")" = "apt-get update frontend=none" ] || wrong "the first call is not the update"
expect_in calls "install --yes --no-install-recommends cmake libfmt-dev frontend=noninteractive"

begin "apt fails"
debian_without cmake
user 0
stand_in apt-get <<'SCRIPT'
echo "E: no space left" >&2
exit 100
SCRIPT
on_machine "$probe" install
expect_status 2
expect_in err "E: no space left"
expect_in err "apt-get failed"

begin "a user without sudo"
debian_without cmake
user 1000
on_machine "$probe" install
expect_status 2
expect_lines err 1
expect_in err "sudo apt-get update; sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends cmake"
expect_lines calls 0

begin "a user whose sudo wants a password, and no terminal"
debian_without cmake
user 1000
stand_in sudo <<'SCRIPT'
note "sudo $*"
exit 1
SCRIPT
on_machine "$probe" install
expect_status 2
expect_not_in calls apt-get

begin "a user whose sudo wants no password"
debian_without cmake
user 1000
stand_in sudo <<'SCRIPT'
[ "$*" = "-n true" ] || exec "$@"
SCRIPT
on_machine "$probe" install
expect_status 0
expect_lines calls 2
expect_in calls "no-install-recommends cmake frontend=noninteractive"

if type -P script >/dev/null; then
  begin "a user at a terminal is asked"
  debian_without cmake
  user 1000
  stand_in sudo <<'SCRIPT'
[ "$1" != -n ] || exit 1
note "sudo $1"
SCRIPT
  on_machine script -qec "$probe install" /dev/null
  expect_status 0
  expect_in calls "sudo apt-get"
fi

begin "--no-install lists everything in one line and calls nobody"
debian_without cmake
CMAKE_PREFIX_PATH=$scratch/nothing on_machine "$probe" no-install
expect_status 2
expect_lines err 1
expect_in err "missing: cmake, ninja, pkg-config"
expect_in err "Debian and Ubuntu: cmake ninja-build pkg-config"
expect_lines calls 0

begin "without apt, CMAKE_PREFIX_PATH decides"
compiler c++ 13
for tool in cmake ninja pkg-config; do
  stand_in "$tool" </dev/null
done
stand_in python3 </dev/null
prefix=$scratch/prefix
for header in Eigen/Core CLI/CLI.hpp fmt/format.h nlohmann/json.hpp utf8proc.h xxhash.h; do
  mkdir -p "$prefix/include/$(dirname "$header")"
  : >"$prefix/include/$header"
done
PYTHON=python3 CMAKE_PREFIX_PATH=/nowhere:$prefix on_machine "$probe" install
expect_status 0
expect_in out "went on with c++"

begin "headers are found in a prefix, in eigen3 below it, and in CPATH"
mkdir -p "$prefix/include/eigen3/lathe_probe"
: >"$prefix/include/eigen3/lathe_probe/nested.h"
: >"$prefix/include/lathe_probe.h"
cat >"$scratch/checkout/look" <<'SCRIPT'
#!/usr/bin/env bash
. "$(dirname "$0")/scripts/install.sh"
header_exists "$1"
SCRIPT
chmod +x "$scratch/checkout/look"
look=$scratch/checkout/look
CMAKE_PREFIX_PATH="/nowhere;$prefix" on_machine "$look" lathe_probe.h
expect_status 0
CMAKE_PREFIX_PATH=$prefix on_machine "$look" lathe_probe/nested.h
expect_status 0
CPATH=/nowhere:$prefix/include on_machine "$look" lathe_probe.h
expect_status 0
CMAKE_PREFIX_PATH=/nowhere on_machine "$look" lathe_probe.h
expect_status 1

begin "an old compiler"
debian_without none
compiler c++ 10
CXX=c++ on_machine "$probe" install
expect_status 2
expect_lines err 1
expect_in err "'c++' is gcc 10"

begin "a newer compiler beside an old one"
debian_without none
compiler c++ 11
compiler g++-12 12
on_machine "$probe" install
expect_status 0
expect_in out "went on with g++-12"

begin "no compiler"
debian_without none
rm "$scratch/machine/bin/c++"
on_machine "$probe" install
expect_status 2
expect_lines err 1
expect_in err "no C++ compiler"

finish
