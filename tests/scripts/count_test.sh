#!/usr/bin/env bash
# The counting of test cases, on what CTest writes for programs that pass, fail, crash, hang, skip and are not there.
# shellcheck source=tests/scripts/harness.sh
. "$(dirname "${BASH_SOURCE[0]}")/harness.sh"

# program NAME STATUS [SKIPPED-MESSAGE]: a <testcase> whose output is read from standard input.
program() {
  printf '\t<testcase name="%s" classname="%s" time="0.1" status="%s">\n' "$1" "$1" "$2"
  case "$2" in
    fail) printf '\t\t<failure message=""/>\n' ;;
    notrun) printf '\t\t<skipped message="%s"/>\n' "$3" ;;
  esac
  printf '\t\t<system-out>'
  cat
  printf '</system-out>\n\t</testcase>\n'
}
# count: reads testcases, puts the counts into out.
count() {
  {
    printf '<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="x"\n\ttests="1"\n\t>\n'
    cat
    printf '</testsuite>\n'
  } >"$scratch/junit.xml"
  status=0
  awk -v stage=cpu -f "$repository/scripts/count_tests.awk" "$scratch/junit.xml" >"$scratch/out" 2>"$scratch/err" || status=$?
  expect_status 0
  expect_lines err 0
}
expect_counts() { expect_in out "$(printf 'count\t%d\t%d\t%d' "$@")"; }

begin "GoogleTest cases"
program tokens fail <<'OUT' | count
[==========] Running 5 tests from 2 test suites.
[ RUN      ] Tokens.Good
[       OK ] Tokens.Good (0 ms)
[ RUN      ] Tokens.Noisy
no end of line[       OK ] Tokens.Noisy (3 ms)
[ RUN      ] Tokens.Bad
file.cc:2: Failure
[  FAILED  ] Tokens.Bad (0 ms)
[ RUN      ] All/Tokens.Each/1
[  FAILED  ] All/Tokens.Each/1, where GetParam() = 4-byte object &lt;01-00&gt; (0 ms)
[ RUN      ] Tokens.Skip
file.cc:9: Skipped
LATHE_TEST_DATA is not set &amp; nothing else

[  SKIPPED ] Tokens.Skip (0 ms)
[ DISABLED ] Tokens.DISABLED_Later
[==========] 5 tests from 2 test suites ran. (9 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Tokens.Skip
[  FAILED  ] 2 tests, listed below:
[  FAILED  ] Tokens.Bad
[  FAILED  ] All/Tokens.Each/1, where GetParam() = 4-byte object &lt;01-00&gt;
OUT
expect_counts 2 2 2
expect_in out "$(printf 'failed\tcpu: Tokens.Bad')"
expect_in out "$(printf 'failed\tcpu: All/Tokens.Each/1')"
expect_in out "$(printf 'skipped\tcpu: Tokens.Skip\tLATHE_TEST_DATA is not set & nothing else')"
expect_in out "$(printf 'skipped\tcpu: Tokens.DISABLED_Later\tdisabled')"

begin "a crash names the case"
program tokens fail <<'OUT' | count
[ RUN      ] Tokens.Good
[       OK ] Tokens.Good (0 ms)
[ RUN      ] Tokens.Crash
OUT
expect_counts 1 1 0
expect_in out "cpu: Tokens.Crash (did not finish)"

begin "a program that fails after its cases passed"
program tokens fail <<'OUT' | count
[ RUN      ] Tokens.Good
[       OK ] Tokens.Good (0 ms)
[  PASSED  ] 1 test.
ERROR: LeakSanitizer: detected memory leaks
OUT
expect_counts 1 1 0
expect_in out "cpu: tokens (the program, after its cases)"

begin "a program that claims success in the middle of a case"
program tokens run <<'OUT' | count
[ RUN      ] Tokens.Exits
OUT
expect_counts 0 1 0

begin "other programs count once"
{
  echo fine | program good run
  echo broken | program bad fail
  : | program slow fail
  : | program absent notrun "Unable to find executable"
  : | program elsewhere notrun "SKIP_RETURN_CODE=77"
  echo Disabled | program off disabled
} | count
expect_counts 1 3 2
expect_in out "cpu: absent (did not run: Unable to find executable)"

begin "nothing ran"
: | count
expect_counts 0 0 0

finish
