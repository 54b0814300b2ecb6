"""The report's style sheet, for a screen and for paper."""

STYLE = """
:root { --ink: #1a1a1a; --soft: #595959; --line: #d9d9d9; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; color: var(--ink);
  background: #fff; max-width: 1120px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.lead { font-size: 1.08rem; }
.note { color: var(--soft); font-size: .88rem; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: middle; }
th { font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; overflow-wrap: break-word; max-width: 20rem; }
td, .name { white-space: nowrap; } td.text { white-space: normal; }
.sayings li { margin-bottom: .25rem; }
thead th { border-bottom: 2px solid var(--ink); }
td small { color: var(--soft); }
.better { font-weight: 600; color: #00614a; } .worse { font-weight: 600; color: #9c3f00; }
.charts { display: flex; flex-wrap: wrap; gap: 1.2rem 1.6rem; }
figure { margin: 0; flex: 1 1 420px; max-width: 560px; min-width: 0; }
figcaption { font-size: .88rem; color: var(--soft); }
svg { max-width: 100%; height: auto; display: block; }
svg.small, svg.swatch { display: inline-block; vertical-align: middle; max-width: none; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: #404040; }
svg .grid { stroke: #e6e6e6; } svg .axis { stroke: #808080; } svg .zero { stroke: #808080; stroke-dasharray: 2 2; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0; margin: .4rem 0 .8rem; list-style: none;
  font-size: .92rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; vertical-align: -.05rem; }
.legend li { max-width: 100%; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .1rem .9rem; }
summary { cursor: pointer; padding: .45rem 0; overflow-wrap: anywhere; }
details[open] > summary { border-bottom: 1px solid var(--line); margin-bottom: .5rem; font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .4rem 1rem; margin: .6rem 0; }
dt { font-weight: 600; overflow-wrap: anywhere; } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.said { white-space: pre-wrap; }
.mark { font-size: .82rem; padding: 0 .4rem; border-radius: 3px; white-space: nowrap; }
.mark.yes { background: #d5efe6; color: #00513d; } .mark.no { background: #fbe3d3; color: #853500; }
pre { overflow-x: auto; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@page { margin: 14mm; }
@media print {
  body { font-size: 10pt; margin: 0; padding: 0; max-width: none; }
  h2 { break-after: avoid; } figure, tr, dl > div { break-inside: avoid; }
  figure { flex: 0 1 47%; } .scroll { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: .25rem .35rem; } td svg.small { width: 130px; }
  details::details-content { content-visibility: visible; block-size: auto; }
  details { break-inside: avoid; } summary { list-style: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
