#pragma once
// The looks of report.html.
#include <string_view>

namespace lathe {

inline constexpr std::string_view kReportStyle = R"(
:root { color-scheme: light dark; --back: #f4f5f8; --paper: #ffffff; --ink: #1b1f27; --soft: #596173; --line: #e1e4ea; --accent: #1d4ed8;
  --warn: #8a3b07; --warn-back: #fff3e6; --hit: 29 78 216; --miss: 180 50 10; --heat: .65; }
@media (prefers-color-scheme: dark) {
  :root { --back: #0e1013; --paper: #14171c; --ink: #e8eaee; --soft: #a3abba; --line: #2b303a; --accent: #8fb3ff;
    --warn: #ffc18a; --warn-back: #2c1d10; --hit: 84 138 247; --miss: 232 93 40; --heat: .6; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: .2rem 0 .6rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .3rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.1rem 0 .2rem; }
p { margin: 0 0 .7rem; max-width: 46rem; }
.kicker { color: var(--soft); font-size: .875rem; margin: 0; }
.lead { font-size: 1.125rem; }
.soft { color: var(--soft); font-size: .9rem; }
.notice { background: var(--warn-back); color: var(--warn); border-radius: .5rem; padding: .7rem 1rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .75rem; padding: 1.4rem 1.5rem 1.5rem; margin-top: 1.25rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: 1px; margin: 1.4rem 0 0; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; overflow: hidden; }
dl div { padding: .9rem 1.1rem; outline: 1px solid var(--line); }
dt { color: var(--soft); font-size: .8125rem; overflow-wrap: anywhere; }
dd { margin: 0; font-size: 1.5rem; line-height: 1.3; font-weight: 600; letter-spacing: -.01em; white-space: nowrap; }
dd small { display: block; font-size: .8125rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
figure { margin: .6rem -.5rem 0; }
figure svg { display: block; width: 100%; height: auto; min-width: 38rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.tall { max-height: 40rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .9375rem; }
caption { text-align: left; font-weight: 600; font-size: 1rem; padding: 1.1rem 0 .2rem; }
th, td { padding: .4rem .75rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .8125rem; white-space: nowrap; }
tbody th { font-weight: 500; }
tr > :first-child { padding-left: 0; }
tr > :last-child { padding-right: 0; }
tbody:last-child tr:last-child > * { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
.scores { width: 100%; max-width: 46rem; }
.scores .mean th, .scores .mean td { color: var(--soft); }
.label { display: inline-block; max-width: 18rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; vertical-align: bottom; }
.tag { display: inline-block; color: var(--soft); font-weight: 400; font-size: .8125rem; white-space: nowrap; }
.heat { border-collapse: separate; border-spacing: 2px; margin-left: -2px; }
.heat tr > th, .heat tr > td { border: 0; padding: .7rem .6rem; vertical-align: middle; }
.heat td { text-align: center; min-width: 4.5rem; border-radius: .25rem; background: rgb(var(--miss) / calc(var(--share) * var(--heat))); }
.heat td.hit { background: rgb(var(--hit) / calc(var(--share) * var(--heat))); }
.heat .zero { color: var(--soft); }
.heat small { display: block; font-size: .75rem; }
.heat tr > :first-child { text-align: right; padding-left: 0; }
.heat thead tr > th { vertical-align: bottom; text-align: center; padding-bottom: .3rem; }
.heat thead .corner { font-weight: 400; }
.dense { border-spacing: 1px; }
.heat.dense tr > td { min-width: 0; width: 1.65rem; height: 1.65rem; padding: 0 .1rem; font-size: .75rem; }
.heat.dense tr > th { padding: .1rem .4rem; font-size: .8125rem; line-height: 1.2; }
.heat.dense thead tr > th:not(:first-child) { padding: 0 0 .3rem; }
.beside { display: grid; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 60rem) { .beside { grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr); column-gap: 3rem; } }
.dense .label { max-width: 11rem; }
.dense thead .label { writing-mode: vertical-rl; transform: rotate(180deg); max-width: none; max-height: 9rem; }
.wrong { width: 100%; }
.wrong td.text { min-width: 20rem; overflow-wrap: anywhere; }
.wrong .label { max-width: 9rem; }
.wrong .pair { display: block; margin-top: .2rem; padding-left: .7rem; border-left: 2px solid var(--line); }
.settings { width: 100%; table-layout: fixed; }
.settings th { width: 13rem; color: var(--soft); font-weight: 400; overflow-wrap: anywhere; }
.settings td { overflow-wrap: anywhere; }
.wide th { width: 60%; }
code { font: .9em ui-monospace, 'Cascadia Mono', Menlo, 'DejaVu Sans Mono', monospace; }
footer { color: var(--soft); font-size: .875rem; margin-top: 1.5rem; }
@media (max-width: 40rem) {
  main { padding: 1.5rem .9rem 2rem; }
  section { padding: 1.1rem 1rem; }
  h1 { font-size: 1.6rem; }
  th, td { padding-left: .5rem; padding-right: .5rem; }
  dl { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  dd { font-size: 1.25rem; }
  .settings:not(.wide) th { width: 9rem; }
    .wrong thead { position: absolute; clip-path: inset(50%); }
  .wrong tr { display: grid; grid-template-columns: 1fr 1fr auto; column-gap: 1rem; padding: .7rem 0; border-bottom: 1px solid var(--line); }
  .wrong tr > :nth-child(n) { padding: 0; border: 0; text-align: left; min-width: 0; }
  .wrong .text { order: 1; grid-column: 1 / -1; }
  .wrong th { order: 2; grid-column: 1 / -1; font-size: .8125rem; font-weight: 400; color: var(--soft); }
  .wrong td { order: 3; font-size: .8125rem; }
  .wrong .text { font-size: .9375rem; }
  .wrong th::before { content: 'line '; }
  .wrong .true::before { content: 'true: '; color: var(--soft); }
  .wrong .predicted::before { content: 'predicted: '; color: var(--soft); }
  .wrong .label { max-width: 100%; }
}
@media print {
  body { background: #ffffff; }
  section { break-inside: avoid; border: 0; padding: 0; }
  .heat td,   .scroll { overflow: visible; max-height: none; }
}
)";

}  // namespace lathe
