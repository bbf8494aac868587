"""Self-contained HTML pages from templates: one look for all that Lacuna draws, pictures inlined.

Each template extends ``base.html``, which has the style, and takes what several show from ``parts.html``. Whatever is
put into one is escaped. The same values give the same bytes.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

EDGE = 160  # pixels: larger pictures are shown as thumbnails, so that a page of them stays under 2 MB


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A chart of bars from left to right: their values, from 0 up, with what is said of each; and what the ends are."""

    title: str
    bars: Sequence[tuple[float, str]]
    first: str
    last: str


def render(template: str, **values: object) -> str:
    """Return the page that *template* makes of *values*; all that it names must be given."""
    return _templates().get_template(template).render(values)


def picture(image: bytes) -> Markup:
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
    source = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    return Markup('<img alt="" loading="lazy" src="{}">').format(source)


def percent(share: float, digits: int = 0) -> str:
    return f"{share:.{digits}%}"


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"picture": picture, "percent": percent}
    return templates
