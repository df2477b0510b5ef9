# Counts test cases in what `ctest --output-junit` wrote: each GoogleTest case of each program, and each other program once.
# A program that failed counts as a failure even where all its cases passed, and a case that a crash or a timeout cut short
# is named. Prints, tab-separated: "count PASSED FAILED SKIPPED", and a line "failed NAME" or "skipped NAME REASON" each.
# -v stage=NAME goes before every name.

function unescape(text) {
  gsub(/&lt;/, "<", text)
  gsub(/&gt;/, ">", text)
  gsub(/&quot;/, "\"", text)
  gsub(/&apos;/, "'", text)
  gsub(/&amp;/, "\\&", text)
  return text
}
function attribute(name,    at, rest) {
  at = index($0, " " name "=\"")
  if (!at) return ""
  rest = substr($0, at + length(name) + 3)
  return unescape(substr(rest, 1, index(rest, "\"") - 1))
}
function report_failed(name) {
  failed++
  print "failed\t" stage ": " name
}
function report_skipped(name, reason) {
  skipped++
  print "skipped\t" stage ": " name "\t" reason
}
# case_name("[       OK ] Suite.Case (3 ms)") is Suite.Case, with the parameter that a failed one may show cut off.
function case_name(text) {
  sub(/^.*\] /, "", text)
  sub(/ \([0-9]+ ms\)$/, "", text)
  sub(/, where .*$/, "", text)
  return unescape(text)
}

/^\t<testcase / {
  program = attribute("name")
  status = attribute("status")
  skip_message = running = reason = ""
  cases = program_failures = expect_reason = finished = 0
  next
}
/^\t\t<skipped message=/ { skip_message = attribute("message"); next }
{ sub(/^\t\t<system-out>/, "") }
/^\[ RUN      \] / { running = case_name($0); reason = ""; cases++; next }
expect_reason { reason = unescape($0); expect_reason = 0 }
/: Skipped$/ { expect_reason = 1; next }
running != "" && /\[       OK \] / { passed++; running = ""; next }
running != "" && /\[  SKIPPED \] / { report_skipped(running, reason == "" ? "no reason given" : reason); running = ""; next }
running != "" && /\[  FAILED  \] / { report_failed(running); program_failures++; running = ""; next }
/^\[ DISABLED \] / { report_skipped(case_name($0), "disabled"); next }
/^\t<\/testcase>/ {
  if (status == "fail") {
    if (running != "") report_failed(running " (did not finish)")
    else if (!program_failures) report_failed(program (cases ? " (the program, after its cases)" : ""))
  } else if (status == "run") {
    if (running != "") report_failed(running " (no result)")
    else if (!cases) passed++
  } else if (status == "notrun" && skip_message ~ /^SKIP_/) {
    report_skipped(program, skip_message)
  } else if (status == "disabled") {
    report_skipped(program, "disabled")
  } else {
    report_failed(program " (did not run: " skip_message ")")
  }
}
END { print "count\t" passed + 0 "\t" failed + 0 "\t" skipped + 0 }
