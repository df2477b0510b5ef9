#!/usr/bin/env bash
# Installs into a prefix and moves it: what the other tests use is not where it was installed.
set -euo pipefail
: "${CMAKE:?}" "${BUILD:?}" "${SOURCE:?}" "${WORK:?}" "${VERSION:?}" "${KIND:?}" "${LIBDIR:?}"
rm -rf "$WORK/installed" "$WORK/moved"
"$CMAKE" --install "$BUILD" --prefix "$WORK/installed" --strip >"$WORK/install.log"
mv "$WORK/installed" "$WORK/moved"
prefix=$WORK/moved

version=$("$prefix/bin/lathe" --version)
grep -qF "lathe $VERSION" <<<"$version" || { echo "bin/lathe --version says: $version"; exit 1; }
if [ "$KIND" = shared ]; then
  for name in liblathe.so "liblathe.so.${VERSION%.*}" "liblathe.so.$VERSION"; do
    [ -e "$prefix/$LIBDIR/$name" ] || { echo "there is no $LIBDIR/$name"; exit 1; }
  done
  [ -z "$(find "$prefix" -name '*.a')" ] || { echo "a shared library was asked for, and archives are installed"; exit 1; }
else
  [ -z "$(find "$prefix" -name '*.so*')" ] || { echo "archives were asked for, and a shared library is installed"; exit 1; }
fi

# Nothing that is read later names a place of this machine.
if grep -rIlF -e "$SOURCE/cmake/" -e "$BUILD" "$prefix"; then
  echo "these files name the folders of the build"
  exit 1
fi
bytes=$(stat -L --format=%s "$prefix/bin/lathe")
[ "$bytes" -lt 30000000 ] || { echo "the stripped command has $bytes bytes; it must be under 30 MB"; exit 1; }
echo "installed and moved; the command has $bytes bytes, stripped"
