#!/usr/bin/env bash
# The same program by pkg-config alone, from the prefix that was moved.
set -euo pipefail
: "${CXX:?}" "${SOURCE:?}" "${WORK:?}" "${LIBDIR:?}" "${VERSION:?}" "${KIND:?}"
export PKG_CONFIG_PATH=$WORK/moved/$LIBDIR/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
version=$(pkg-config --modversion lathe)
[ "$version" = "$VERSION" ] || { echo "pkg-config says version $version, expected $VERSION"; exit 1; }
libraries=$(pkg-config --libs lathe)
if [ "$KIND" = shared ] && grep -E 'fmt|dnnl|utf8proc|gomp|openmp' <<<"$libraries"; then
  echo "a private library is on the consumer's link line"
  exit 1
fi
program=$WORK/by_pkg_config
# shellcheck disable=SC2046,SC2086
"$CXX" -std=c++20 $(pkg-config --cflags lathe) "$SOURCE/tests/consumer/training.cc" -o "$program" $libraries
cd "$WORK"
LD_LIBRARY_PATH=$WORK/moved/$LIBDIR${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$program"
