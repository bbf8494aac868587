"""Self-contained HTML pages: one look for all that Lacuna draws, pictures inlined. Knows nothing of what they show."""

import base64
import html
import io
from collections.abc import Sequence

EDGE = 160  # pixels: larger pictures are shown as thumbnails, so that a page of them stays under 2 MB

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6b7e; --line: #d9dfe7; --card: #fff; --page: #f4f6f9;
        --bar: #3b6fd4; --bad: #c2413b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa7b8; --line: #323b48; --card: #1b222c;
        --page: #12171e; --bar: #6d9bf1; --bad: #f0827c; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 10px; }
p.soft, .soft { color: var(--soft); } code { font-size: 13px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 18px 0; }
.tile, figure, table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: 7px 14px; text-align: left; border-top: 1px solid var(--line); } tr:first-child > * { border-top: 0; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); gap: 10px; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
figure { margin: 0; padding: 8px; overflow: hidden; } figure img { width: 100%; border-radius: 5px; display: block;
  image-rendering: pixelated; } figcaption { font-size: 12px; color: var(--soft); margin-top: 5px; line-height: 1.35; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; } .pixels { width: auto; } .pixels img { width: 72px; border-radius: 4px; display: block;
  image-rendering: pixelated; } .pixels td { padding: 3px 6px; max-width: 160px; }
main > figure + figure { margin-top: 12px; } main.whole { max-width: 1700px; }
.scores td, .scores th, .figures td, .figures th { padding: 5px 6px; font-size: 13px; vertical-align: top;
  line-height: 1.35; } small { color: var(--soft); font-size: 11px; } th { font-weight: 600; }
.scores th:first-child, .scores td:first-child { position: sticky; left: 0; background: var(--card); }
td { overflow-wrap: break-word; }
summary { margin: 8px 0; cursor: pointer; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg { width: 100%; height: auto; display: block; }
"""


def page(title: str, body: Sequence[str], *, wide: bool = False) -> str:
    """Return a whole page; *body* is HTML, a block an item. A *wide* one, of large tables, takes the window's width."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    content = "\n".join(body)
    return (
        f"<!doctype html><html lang=en><head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main{' class=whole' if wide else ''}>{content}</main></body></html>\n"
    )


def picture(image: bytes) -> str:
    """Return the ``img`` of an encoded picture (JPEG, PNG or WebP)."""
    from PIL import Image

    opened: Image.Image = Image.open(io.BytesIO(image))
    kind = str(opened.format).lower()
    if max(opened.size) > EDGE:
        opened = opened.convert("RGB")
        opened.thumbnail((EDGE, EDGE))
        buffer = io.BytesIO()
        opened.save(buffer, "JPEG", quality=85)
        image, kind = buffer.getvalue(), "jpeg"
    return f'<img alt="" loading="lazy" src="data:image/{kind};base64,{base64.b64encode(image).decode()}">'


def escape(text: object) -> str:
    """Return *text* as HTML shows it."""
    return html.escape(str(text))
