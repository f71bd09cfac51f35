"""One self-contained HTML page: sections of blocks, styles and pictures inside the file, no JavaScript."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visrep.files import write_atomic

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; each block is HTML made by the functions below."""

    title: str
    blocks: Sequence[str] = field(default_factory=tuple)


def write_report(path: Path, sections: Sequence[Section], title: str, subtitle: str = "") -> Path:
    """Write the page, replacing an older one at once. Sections with nothing in them say so."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    links = "".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(sections))
    body = "\n".join(
        f'<section id="s{i}"><h2>{html.escape(s.title)}</h2>\n' + ("\n".join(s.blocks) or missing()) + "</section>"
        for i, s in enumerate(sections)
    )
    heading = html.escape(title)
    lead = f'<p class="lead">{html.escape(subtitle)}</p>' if subtitle else ""
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark"><title>{heading}</title>\n<style>{CSS}</style></head>\n'
        f"<body><main><header><h1>{heading}</h1>{lead}<nav>{links}</nav></header>\n{body}\n</main></body></html>\n"
    )
    write_atomic(path, text.encode())
    return path


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{html.escape(text)}</p>"


def missing(what: str = "") -> str:
    """A clear line for what a run did not record."""
    return f'<p class="missing">{html.escape(what + ": " if what else "")}not recorded</p>'


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """A few key numbers, (name, value) each."""
    items = "".join(f"<div><dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd></div>" for n, v in values)
    return f'<dl class="tiles">{items}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways on small screens. Cells that are numbers are set to the right."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(text: str) -> str:
    number = text[:1].isdigit() or (text[:1] in "-−" and text[1:2].isdigit())
    return f"<td{' class=num' if number else ''}>{html.escape(text)}</td>"


def folded(summary: str, *blocks: str) -> str:
    """Blocks behind a line that opens on a click."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(blocks)}</details>"


def command(text: str) -> str:
    """A command as typed."""
    return f"<pre>{html.escape(text)}</pre>"


def drawing(svg: str, caption: str) -> str:
    """Inline SVG (``figures.inline_svg``) with a caption; goes into ``gallery``."""
    return f'<figure class="plot">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'


def picture(data: bytes, suffix: str, caption: str, *, pixelated: bool = False) -> str:
    """A picture file's bytes with a caption. ``pixelated`` keeps the pixels of small frames sharp."""
    source = f"data:{MEDIA_TYPES[suffix]};base64,{base64.b64encode(data).decode()}"
    style = ' class="frame"' if pixelated else ' class="paper"'
    alt = html.escape(caption)
    return f'<figure><img{style} src="{source}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'


def video(data: bytes, caption: str) -> str:
    """An mp4 file's bytes as a player with controls."""
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    player = f'<video controls loop muted playsinline preload="metadata" src="{source}"></video>'
    return f"<figure>{player}<figcaption>{html.escape(caption)}</figcaption></figure>"


def gallery(blocks: Iterable[str], *, small: bool = False) -> str:
    """Figures beside each other, as many as the screen holds."""
    return f'<div class="gallery{" small" if small else ""}">{"".join(blocks)}</div>'


CSS = """
:root { color-scheme: light dark; --ink: #20262d; --soft: #5c6670; --page: #f6f7f9; --card: #fff; --line: #dde1e6;
  --link: #0067a3; --warn: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --soft: #9aa4ae; --page: #14171b; --card: #1d2126;
  --line: #343b43; --link: #6cb8ea; --warn: #e0a95a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 64px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4em 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2em 0 .7em; padding-bottom: .25em; border-bottom: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0 0 .8em; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2em 1.1em; font-size: .95rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
dt { color: var(--soft); font-size: .82rem; } dd { margin: 0; font-size: 1.2rem; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 14px;
  align-items: start; }
.gallery.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
figure svg, figure img, figure video { display: block; width: 100%; height: auto; max-height: 560px; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important; }
img { object-fit: contain; } img.paper { background: #fff; border-radius: 4px; }
img.frame { image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: 6px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .6em 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; min-width: 45%; }
th { text-align: left; color: var(--soft); font-weight: 600; } th, td { padding: 5px 14px 5px 0; white-space: nowrap;
  border-bottom: 1px solid var(--line); } td.num { text-align: right; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  font-size: .88rem; margin: .6em 0; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .8em 0; } summary { cursor: pointer; color: var(--link); padding: .2em 0; }
.missing { color: var(--warn); }
@media print { nav { display: none; } figure { break-inside: avoid; } details { display: block; } }
"""
