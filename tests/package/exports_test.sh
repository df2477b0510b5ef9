#!/usr/bin/env bash
# The shared library exports Lathe's public names, and neither its internals nor the libraries that it is made with.
set -euo pipefail
export LC_ALL=C
: "${NM:?}" "${WORK:?}" "${LIBDIR:?}"
exported=$("$NM" --dynamic --defined-only --demangle "$WORK/moved/$LIBDIR/liblathe.so" | cut -d ' ' -f 3-)
failed=0
for name in 'typeinfo for lathe::FormatError' 'lathe::best_cpu_target()' 'lathe::SafetensorsFile::open(std::filesystem::__cxx11::path const&)' \
  'void lathe::sum<double>(lathe::CpuStream, lathe::Sum<double> const&)'; do
  grep -qxF "$name" <<<"$exported" || { echo "not exported: $name"; failed=1; }
done
for pattern in 'fmt::' 'nlohmann' 'Eigen' 'dnnl' 'lathe::v[34]::' 'lathe::parse_json' 'lathe::JsonE' 'lathe::matmul_panels' 'lathe::(.*)Csv'; do
  if found=$(grep -E "^([a-z]+ [a-z ]*for )?[^(]*$pattern" <<<"$exported"); then
    printf 'exported, but not for users (%s):\n%s\n' "$pattern" "$(head -n 5 <<<"$found")"
    failed=1
  fi
done
[ "$failed" -ne 0 ] || echo "$(grep -c lathe <<<"$exported") names of Lathe are exported"
exit "$failed"
