"""The look of the report: one style sheet and one script, both inlined into the page."""

from __future__ import annotations

POLICY = (  # the browser itself then refuses every fetch
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)

STYLE = """
:root {
  color-scheme: light dark;
  --c-paper: #ffffff; --c-panel: #f6f7f8; --c-ink: #1d2430; --c-muted: #68707d; --c-line: #c9ced6; --c-grid: #e9ecf0;
  --c-full: #0067a8; --c-subset: #c04f00; --c-target: #7a3fa0; --c-good: #00794f; --c-bad: #b3245c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --c-paper: #14171c; --c-panel: #1d2128; --c-ink: #e6e9ee; --c-muted: #98a1ae; --c-line: #454d59; --c-grid: #2a3038;
    --c-full: #5ab4ee; --c-subset: #f59a4a; --c-target: #c79bea; --c-good: #3fcf97; --c-bad: #ff7aa8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--c-paper); color: var(--c-ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif;
}
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.3; font-weight: 650; margin: .25rem 0 1rem; max-width: 48rem;
  letter-spacing: -.01em; text-wrap: pretty; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 3.25rem 0 .5rem; }
h3 { font-size: 1rem; font-weight: 650; margin: 1.75rem 0 .4rem; }
p { margin: .4rem 0; max-width: 48rem; }
a { color: var(--c-full); }
.eyebrow, .reading, .legend, .small, td .sub { color: var(--c-muted); font-size: .875rem; }
.eyebrow { overflow-wrap: anywhere; }
.reading { margin-bottom: .6rem; max-width: 48rem; }
.chip { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; border: 1px solid currentColor;
  font-size: .8rem; white-space: nowrap; color: var(--c-muted); }
.chip.good { color: var(--c-good); } .chip.bad { color: var(--c-bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .75rem 0; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--c-grid); }
th { font-size: .8rem; font-weight: 600; color: var(--c-muted); border-bottom-color: var(--c-line);
  vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
.num { text-align: right; white-space: nowrap; }
td:first-child { min-width: 12rem; }
td b { font-weight: 600; }
.sub { display: block; max-width: 26rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; list-style: none; margin: .4rem 0 0; padding: 0; }
.legend li { display: flex; align-items: flex-start; gap: .45rem; }
.legend svg { flex: none; width: 18px; height: 1.3em; }
figure { margin: 0; }
.plot { width: 100%; overflow: hidden; }
pre { background: var(--c-panel); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; line-height: 1.45;
  font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--c-muted); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1.25rem; margin: .4rem 0;
  font-size: .9rem; }
dt { color: var(--c-muted); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
noscript p { border-left: 3px solid var(--c-bad); padding-left: .75rem; }
@media (max-width: 46rem) {
  main { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.35rem; }
  table.cards thead { display: none; }
  table.cards, .cards tbody, .cards tr, .cards td { display: block; width: 100%; }
  .cards tr { padding: .75rem 0; border-bottom: 1px solid var(--c-line); }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; text-align: right;
    white-space: normal; }
  .cards td:first-child { display: block; text-align: left; padding-bottom: .35rem; }
  .cards td[data-label]::before { content: attr(data-label); color: var(--c-muted); font-size: .875rem;
    text-align: left; flex: none; }
  .cards td:first-child::before { display: none; }
  .cards td.none { display: none; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
}
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""

SCRIPT = """
(() => {
  const figures = JSON.parse(document.getElementById('figures').textContent);
  const isName = /^--c-[a-z]+$/;
  const coloured = (value, style) => {
    if (typeof value === 'string') return isName.test(value) ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, style)]));
  };
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(figures)) {
      const {data, layout} = coloured(figure, style);
      if (matchMedia('(pointer: coarse)').matches) layout.dragmode = false;  // a finger scrolls the page
      Plotly.react('figure-' + name, data, layout, {responsive: true, displayModeBar: false});
    }
  };
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
})();
"""

_SHAPES = {
    "dot": '<circle cx="9" cy="9" r="4.5" fill="{c}"/>',
    "hollow": '<circle cx="9" cy="9" r="4" fill="none" stroke="{c}" stroke-width="1.5"/>',
    "ring": '<circle cx="9" cy="9" r="7.5" fill="none" stroke="{c}" stroke-width="1.5"/>',
    "triangle": '<path d="M9 3 L15.5 14 H2.5 Z" fill="{c}"/>',
    "diamond": '<path d="M9 3 L15 9 L9 15 L3 9 Z" fill="{c}"/>',
    "square": '<rect x="4" y="4" width="10" height="10" fill="{c}"/>',
    "cross": '<path d="M5 5 L13 13 M13 5 L5 13" stroke="{c}" stroke-width="1.5"/>',
    "line": '<path d="M0 9 H18" stroke="{c}" stroke-width="2"/>',
}


def mark(shape: str, colour: str) -> str:
    """A mark of a legend as inline SVG; `colour` is the name of a CSS variable."""
    return f'<svg viewBox="0 0 18 18" aria-hidden="true">{_SHAPES[shape].format(c=f"var({colour})")}</svg>'
