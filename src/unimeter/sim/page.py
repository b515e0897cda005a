"""One run as a page: `unimeter simulate --html FILE`.

Owns a single file that needs nothing else: no request leaves it (its own policy forbids
any), there is no library in it, and it follows the reader's light or dark. The picture
(`picture`) comes first, the sentences of `trace` below it, with the same numbers; a click
on either shows the other. Lanes and kinds can be hidden, and messages that only say that
a node is alive are hidden at first.

Everything that comes from a run is escaped: an entry's account may hold any text.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from unimeter.sim.picture import AXIS_WIDTH, LANE_WIDTH, Picture
from unimeter.sim.report import duration, first_line
from unimeter.sim.result import Result
from unimeter.sim.trace import sentence, who_of

HAPPENINGS_MAX: Final = 12_000
"""Happenings on a page, the last ones: what a browser scrolls without stuttering. A failure is
at the end of a story; `--trace` prints all of it."""


def page(result: Result, release: str = "") -> str:
    """The whole page. `release` says which program made the run."""
    happenings = result.happenings
    first = max(0, len(happenings) - HAPPENINGS_MAX)
    verdict = "PASSED" if result.passed else "FAILED"
    ending = "" if result.passed else f"{result.checker}: {first_line(result.failure)}"
    picture = Picture(happenings, first, ending)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>seed {result.seed}: {verdict}</title>",
            f"<style>{STYLE}</style></head><body>",
            *_head(result, verdict, release, first),
            '<form id="filters"><span id="lanes"></span><span id="kinds"></span>'
            '<label><input type="checkbox" id="quiet"> heartbeats</label>'
            '<input type="search" id="words" placeholder="only sentences with ..."></form>',
            '<div id="picture">',
            _lane_heads(picture),
            picture.svg(),
            '</div><div id="story">',
            *_rows(result, first, picture.quiet),
            "</div>",
            f"<script>{SCRIPT}</script></body></html>",
            "",
        ]
    )


def _head(result: Result, verdict: str, release: str, first: int) -> Iterator[str]:
    """Seed, options and what came of it."""
    yield f'<header class="{verdict.lower()}"><h1>seed {result.seed} <b>{verdict}</b></h1>'
    if not result.passed:
        yield f"<p class='checker'>{escape(result.checker)}</p><pre>{escape(result.failure)}</pre>"
    facts = {
        "reproduce": result.command,
        "release": release,
        "profile": result.profile,
        "nodes": str(result.nodes),
        "virtual time": duration(result.virtual_seconds),
        "client calls": f"{result.requests:,}",
        "entries committed": f"{result.entries:,}",
        "trace hash": result.trace_hash,
    }
    yield "<dl>"
    for name, value in facts.items():
        if value:
            yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
    yield _details("options drawn", {name: str(value) for name, value in result.options.items()})
    yield _details("faults", {name: f"{count:,}" for name, count in result.faults.items()})
    yield _details("situations", {name: f"{count:,}" for name, count in result.reached.items()})
    if first:
        yield (
            f"<p>The first {first:,} happenings are left out here: "
            f"<code>{escape(result.command)} --trace</code> prints all.</p>"
        )
    yield "</header>"


def _details(title: str, facts: dict[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<details><summary>{title} ({len(facts)})</summary><table>{rows}</table></details>"


def _lane_heads(picture: Picture) -> str:
    heads = "".join(
        f'<span style="width:{LANE_WIDTH}px">{escape(who)}</span>' for who in picture.lanes
    )
    style = f"padding-left:{AXIS_WIDTH}px;width:{picture.width - AXIS_WIDTH}px"
    return f'<div id="heads" style="{style}">{heads}</div>'


def _rows(result: Result, first: int, quiet: set[int]) -> Iterator[str]:
    """The story, a row for each happening."""
    for number in range(first, len(result.happenings)):
        happening = result.happenings[number]
        who, kind = escape(who_of(happening)), escape(happening.kind)
        hidden = " quiet" if number in quiet else ""
        yield (
            f'<div id="h{number}" class="row{hidden}" data-w="{who}" data-k="{kind}">'
            f"<i>#{number}</i><i>{happening.time_ns / 1e9:.6f}</i><i>{who}</i>"
            f"{escape(sentence(happening))}</div>"
        )
    if not result.passed:
        yield f'<div class="row last">{escape(result.checker)}: {escape(result.failure)}</div>'


STYLE: Final = """
:root { color-scheme: light dark; --ink:#1c2430; --dim:#6b7686; --paper:#fff; --panel:#f4f6f9;
  --line:#d8dee6; --bad:#c62828; --good:#2e7d32; --warn:#b26a00; --info:#3949ab; --box:#dfe6ee; }
@media (prefers-color-scheme: dark) { :root { --ink:#e3e8ef; --dim:#8a95a5; --paper:#12161c;
  --panel:#1a2029; --line:#2d3642; --bad:#ff6b60; --good:#6fce75; --warn:#f0ad4e; --info:#93a5ff;
  --box:#2a3441; } }
body { margin:0 auto; padding:0 16px; color:var(--ink); background:var(--paper);
  font:14px/1.45 system-ui, sans-serif; }
h1 { font-size:20px; margin:14px 0 6px; } .passed b { color:var(--good); }
.failed b, .checker { color:var(--bad); } .checker { font-weight:600; margin:0; }
pre { background:var(--panel); border-left:4px solid var(--bad); padding:8px 12px; margin:4px 0;
  white-space:pre-wrap; max-height:16em; overflow:auto; }
dl { display:flex; flex-wrap:wrap; gap:2px 22px; margin:8px 0; }
dt { color:var(--dim); } dt::after { content:":"; }
dd { margin:0 0 0 -16px; font-family:ui-monospace, monospace; font-size:13px; }
details { display:inline-block; vertical-align:top; margin:0 18px 6px 0; }
summary { cursor:pointer; color:var(--info); } td { padding:0 14px 0 0; vertical-align:top; }
#filters { position:sticky; top:0; z-index:3; background:var(--paper); padding:6px 0;
  display:flex; flex-wrap:wrap; gap:4px 18px; font-size:13px; border-bottom:1px solid var(--line); }
#filters label { margin-right:8px; white-space:nowrap; }
#picture { overflow:auto; max-height:72vh; border-bottom:1px solid var(--line); }
#heads { position:sticky; top:0; z-index:2; background:var(--panel); display:flex;
  font-weight:600; } #heads span { text-align:center; flex:none; }
svg { display:block; } svg [data-h] { cursor:pointer; }
.b-start { fill:var(--box); } .b-lead { fill:hsl(var(--hue) 60% 55% / .55); }
.b-pause { fill:url(#hatch); } .hatch { fill:var(--dim); }
.b-call { fill:var(--info); opacity:.55; }
.m, .drop { stroke:var(--dim); stroke-width:1; opacity:.6; }
.drop { stroke:var(--bad); stroke-dasharray:3 2; } .m:hover, .drop:hover { stroke-width:3; }
.tick { fill:var(--good); } .label { font-size:10px; fill:var(--ink); }
.mark { font-size:14px; text-anchor:middle; } .bad { fill:var(--bad); } .good { fill:var(--good); }
.warn { fill:var(--warn); } .info { fill:var(--info); } .dim { fill:var(--dim); }
.grid { stroke:var(--line); } .time { font-size:10px; fill:var(--dim); text-anchor:end; }
.ending { fill:var(--bad); } .ending-words { fill:#fff; font-weight:600; }
.at { stroke:var(--warn) !important; stroke-width:2.5px; opacity:1; }
body:not(.all) .quiet { display:none; }
#story { font:12.5px/1.5 ui-monospace, monospace; padding:10px 0 60px; }
.row { content-visibility:auto; contain-intrinsic-size:auto 19px; cursor:pointer;
  overflow-wrap:anywhere; } .row:hover { background:var(--panel); }
.row i { display:inline-block; font-style:normal; color:var(--dim); width:6.5em; }
.row i:nth-child(2) { width:9em; text-align:right; padding-right:1.5em; }
.row i:nth-child(3) { width:4em; color:var(--info); }
.row.now { background:color-mix(in srgb, var(--warn) 25%, transparent); }
.row[data-k=fault], .row[data-k=cut] { color:var(--warn); }
.row[data-k=kill], .row[data-k=power], .row[data-k=failed], .row.last { color:var(--bad); }
.row[data-k=reach], .row[data-k=lead] { font-weight:600; } .row.last { white-space:pre-wrap; }
"""

SCRIPT: Final = """
'use strict';
const all = selector => [...document.querySelectorAll(selector)];
const rows = all('.row[data-k]');
const rules = document.head.appendChild(document.createElement('style'));
const hidden = {w: new Set(), k: new Set()};
function boxes(place, letter, names) {
  for (const name of names) {
    const label = document.createElement('label'), box = document.createElement('input');
    box.type = 'checkbox'; box.checked = true;
    box.onchange = () => { hidden[letter][box.checked ? 'delete' : 'add'](name); apply(); };
    label.append(box, ' ' + name); document.getElementById(place).append(label);
  }
}
function apply() {
  let css = '';
  for (const letter of 'wk') for (const name of hidden[letter]) {
    const value = '"' + CSS.escape(name) + '"';
    css += `[data-${letter}=${value}] { display:none !important; }`;
    if (letter === 'w') css += `[data-o=${value}] { display:none !important; }`;
  }
  rules.textContent = css;
}
const order = who => [who === 'world' ? 0 : who[0] === 'n' ? 1 : 2, +who.slice(1) || 0];
const names = key => [...new Set(rows.map(row => row.dataset[key]))];
boxes('lanes', 'w', names('w').sort((a, b) => {
  const [x, y] = [order(a), order(b)]; return x[0] - y[0] || x[1] - y[1]; }));
boxes('kinds', 'k', names('k').sort());
document.getElementById('filters').onsubmit = event => event.preventDefault();
document.getElementById('quiet').onchange = event =>
  document.body.classList.toggle('all', event.target.checked);
document.getElementById('words').oninput = event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
};
function show(number, target) {
  for (const old of all('.now, .at')) old.classList.remove('now', 'at');
  const row = document.getElementById('h' + number);
  const shapes = all(`svg [data-h="${number}"]`);
  if (row) row.classList.add('now');
  for (const shape of shapes) shape.classList.add('at');
  const place = target === 'row' ? row : shapes[0];
  if (place) place.scrollIntoView({block: 'center', behavior: 'smooth'});
}
document.querySelector('svg').onclick = event => {
  const shape = event.target.closest('[data-h]');
  if (shape) show(shape.dataset.h, 'row');
};
document.getElementById('story').onclick = event => {
  const row = event.target.closest('.row[data-k]');
  if (row) show(row.id.slice(1), 'shape');
};
const frame = document.getElementById('picture');
frame.scrollTop = frame.scrollHeight;
"""
