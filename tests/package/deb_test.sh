#!/usr/bin/env bash
# The Debian package: its control fields, what it needs, what is in it; and the command runs out of it.
set -euo pipefail
: "${CMAKE:?}" "${BUILD:?}" "${WORK:?}" "${VERSION:?}" "${KIND:?}" "${MPI:?}"
for tool in dpkg-deb dpkg-shlibdeps file; do
  command -v "$tool" >/dev/null || { echo "there is no $tool here (packages dpkg-dev and file)"; exit 77; }
done
rm -rf "$WORK/deb"
"$(dirname "$CMAKE")/cpack" -G DEB -B "$WORK/deb" --config "$BUILD/CPackConfig.cmake" >"$WORK/deb.log" 2>&1 || { cat "$WORK/deb.log"; exit 1; }
deb=$WORK/deb/lathe_${VERSION}_amd64.deb
[ -e "$deb" ] || { echo "there is no $deb"; ls "$WORK/deb"; exit 1; }

failed=0
# field NAME PATTERN
field() {
  local found
  found=$(dpkg-deb --field "$deb" "$1")
  if ! grep -qE "$2" <<<"$found"; then
    echo "$1 is '$found', expected $2"
    failed=1
  fi
}
field Package '^lathe$'
field Version "^$VERSION\$"
field Architecture '^amd64$'
field Section '^science$'
field Maintainer '^.+ <.+@.+>$'
field Description '^.{10,79}$'
for library in libc6 libstdc++6 libgcc-s1 libgomp1 libfmt libutf8proc; do
  field Depends "(^|, )${library//+/\\+}"
done
[ "$MPI" = OFF ] || field Depends '(^|, )lib(openmpi|mpich)'

dpkg-deb --extract "$deb" "$WORK/deb/root"
# No `| grep -q`: it stops reading at its match, and the writer's broken pipe would count as a failure.
grep -qF "lathe $VERSION" <<<"$("$WORK/deb/root/usr/bin/lathe" --version)" || { echo "the command in the package does not run"; failed=1; }
for path in usr/include/lathe/runtime/error.h usr/include/lathe/version.h usr/share/doc/lathe/copyright; do
  [ -e "$WORK/deb/root/$path" ] || { echo "$path is not in the package"; failed=1; }
done
[ -z "$(find "$WORK/deb/root" -name 'cpu_dispatch.h')" ] || { echo "internal headers are in the package"; failed=1; }
unreadable=$(find "$WORK/deb/root" -type f ! -perm -444)
[ -z "$unreadable" ] || { echo "not everybody may read: $unreadable"; failed=1; }
if [ "$KIND" = shared ]; then
  control=$(dpkg-deb --ctrl-tarfile "$deb" | tar -t)
  grep -q shlibs <<<"$control" || { echo "the package does not say what its shared library is called"; failed=1; }
fi
dpkg-deb --field "$deb" Package Version Depends Installed-Size
rm -rf "$WORK/deb"
exit "$failed"
