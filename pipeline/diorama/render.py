"""Pixels of a scene: stickers on a painted background under a style. Needed to train and to compare; never to generate.

The stickers are the glyphs of Noto Color Emoji (SIL Open Font License 1.1; Debian: fonts-noto-color-emoji), with a
white rim of one pixel so that a black bomb stays visible in space.
"""

import random
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.diorama.lexicon import OBJECTS
from pipeline.diorama.world import PICTURE_SIZE, STICKER_SIZE, Scene
from pipeline.errors import LacunaError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_FONT_SIZE = 109  # the one strike that the bitmap font holds

_GLYPHS_IN_ORDER = (
    "🐱 🐯 🦁 🐶 🐺 🦊 🐻 🐼 🐨 🐮 🐷 🐴 🐔 🦉 🐧 🐠 🦈 🐳 🍺 🍷 ☕ 🔪 🔫 🗡️ 💣 🪓 🚬 💉 💊 🚗 🚌 🚲 "
    "✈️ 🚁 🚀 🍎 🍊 🍌 🍓 🍕 🍔 🎂 🌹 🌻 🌷 🌳 🌴 🌵 ☀️ 🌙 ⭐ ⚽ 🏀 ⚾ 🎸 🎻 🎺 🏠 🏰 ⛪ 👻 💀 🎃 🎈"
)
GLYPHS: dict[str, str] = dict(zip(OBJECTS, _GLYPHS_IN_ORDER.split(), strict=True))


@cache
def sticker(name: str) -> np.ndarray:
    """The sticker of an object as float32 (32, 32, 4) in 0..1, alpha last. Raises LacunaError without the font."""
    if not FONT.exists():
        raise LacunaError(f"{FONT}: not found; rendering needs the Debian package fonts-noto-color-emoji")
    font = ImageFont.truetype(str(FONT), _FONT_SIZE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((12, 12), GLYPHS[name], font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    inner = STICKER_SIZE - 4  # the rim takes one pixel on each side, and one stays free
    scale = inner / max(glyph.size)
    glyph = glyph.resize((round(glyph.width * scale), round(glyph.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGBA", (STICKER_SIZE, STICKER_SIZE))
    tile.paste(glyph, ((STICKER_SIZE - glyph.width) // 2, (STICKER_SIZE - glyph.height) // 2))
    pixels = np.asarray(tile, np.float32) / 255
    solid = tile.getchannel("A").point(lambda a: a if a > 96 else 0)  # else faint smoke gets a rim in blocks
    rim = np.asarray(solid.filter(ImageFilter.MaxFilter(3)), np.float32)[..., None] / 255
    alpha = pixels[..., 3:]
    color = pixels[..., :3] * alpha + (1 - alpha)  # over white: what the rim shows
    return np.concatenate([color, rim], axis=-1)


def render(scene: Scene) -> np.ndarray:
    """The scene as uint8 (64, 64, 3)."""
    rng = np.random.default_rng(scene.seed)
    picture = paint_background(scene.background, rng)
    for name, (x, y) in zip(scene.objects, scene.corners, strict=True):
        tile = sticker(name)
        window = picture[y : y + STICKER_SIZE, x : x + STICKER_SIZE]
        window += tile[..., 3:] * (tile[..., :3] - window)
    levels: np.ndarray = np.rint(apply_style(picture, scene.style).clip(0, 1) * 255)
    return levels.astype(np.uint8)


# Each background: colours of bands from top to bottom, with the row at which each colour is reached.
_BANDS: dict[str, tuple[tuple[int, tuple[int, int, int]], ...]] = {
    "beach": ((0, (120, 200, 250)), (24, (190, 230, 250)), (25, (30, 130, 200)), (39, (60, 170, 210)),
              (40, (240, 220, 160)), (63, (225, 195, 125))),
    "meadow": ((0, (110, 180, 250)), (31, (205, 232, 250)), (32, (130, 200, 80)), (63, (60, 140, 40))),
    "desert": ((0, (250, 225, 175)), (27, (250, 240, 210)), (28, (225, 170, 95)), (63, (190, 120, 55))),
    "snow": ((0, (165, 185, 205)), (31, (215, 225, 235)), (32, (250, 252, 255)), (63, (215, 230, 245))),
    "city": ((0, (170, 190, 205)), (47, (215, 220, 225)), (48, (90, 92, 98)), (63, (70, 70, 76))),
    "room": ((0, (225, 200, 180)), (43, (240, 215, 195)), (44, (150, 100, 65)), (63, (120, 75, 45))),
    "space": ((0, (12, 10, 40)), (63, (45, 20, 75))),
    "sunset": ((0, (70, 45, 120)), (20, (200, 80, 120)), (40, (255, 150, 70)), (47, (255, 205, 110)),
               (48, (60, 40, 70)), (63, (35, 25, 50))),
}  # fmt: skip


@cache
def _base(background: str) -> np.ndarray:
    rows, colors = zip(*_BANDS[background], strict=True)
    y = np.arange(PICTURE_SIZE)
    column = np.stack([np.interp(y, rows, [c[i] for c in colors]) for i in range(3)], axis=-1) / 255
    picture = np.repeat(column[:, None], PICTURE_SIZE, axis=1).astype(np.float32)
    fixed = random.Random(f"base {background}")
    x = np.arange(PICTURE_SIZE)[None, :]
    row = y[:, None]
    if background == "desert":  # a second dune, so that the place is told by its lines even in a sketch
        picture[row > 40 + 8 * np.sin(x / 9.0)] *= (0.88, 0.84, 0.8)
    elif background == "meadow":
        picture[(row > 20 + 0.018 * (x - 18) ** 2) & (row < 36)] = (0.42, 0.68, 0.3)
    elif background == "snow":
        picture[(row > 10 + abs(x - 46)) & (row < 32)] = (0.62, 0.68, 0.76)
        picture[(row > 16 + abs(x - 14)) & (row < 32)] = (0.7, 0.75, 0.82)
    elif background == "city":
        for left in range(0, PICTURE_SIZE, 8):
            top = fixed.choice((12, 20, 28, 36))
            picture[top:48, left : left + 8] = 0.40 + 0.16 * fixed.random()
            picture[top + 4 : 46 : 8, left + 2 : left + 6] = (0.95, 0.9, 0.6)
    elif background == "space":
        for _ in range(16):
            top, left = 4 * fixed.randrange(16), 4 * fixed.randrange(16)
            picture[top : top + 2, left : left + 2] = 0.6 + 0.4 * fixed.random()
    elif background == "room":
        picture[4:24, 40:60] = (0.95, 0.95, 0.9)
        picture[6:22, 42:58] = (0.55, 0.75, 0.9)
    return picture


def paint_background(background: str, rng: np.random.Generator) -> np.ndarray:
    """Float32 (64, 64, 3) in 0..1: the fixed scenery in a slightly varying light."""
    light = rng.uniform(0.9, 1.08) * rng.uniform(0.96, 1.04, size=3)
    return (_base(background) * light).clip(0, 1).astype(np.float32)


def apply_style(picture: np.ndarray, style: str) -> np.ndarray:
    """A style over float32 (64, 64, 3) in 0..1. All four are functions of the whole picture, stickers and all."""
    if style == "sepia":
        gray = picture @ np.array((0.299, 0.587, 0.114), np.float32)
        return gray[..., None] * np.array((1.02, 0.83, 0.60), np.float32) + np.array((0.06, 0.03, 0.0), np.float32)
    if style == "sketch":
        gray = picture @ np.array((0.299, 0.587, 0.114), np.float32)
        ink = 0.92 - 2.2 * _edges(picture).mean(axis=-1) + 0.25 * (gray - 0.8)
        return np.repeat(ink[..., None], 3, axis=-1).clip(0, 1)
    if style == "pixel art":
        blocks: np.ndarray = picture.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        blocks = np.rint(blocks * 4) / 4
        return blocks.repeat(2, axis=0).repeat(2, axis=1)
    if style == "neon":
        return 0.05 + 0.2 * picture * (0.0, 0.3, 1.0) + 2.2 * _edges(picture) * (0.45 + 0.55 * picture)
    return picture


def _edges(picture: np.ndarray) -> np.ndarray:
    """Gradient magnitude per channel, same shape, by central differences with the border repeated."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    edges: np.ndarray = np.sqrt(dx * dx + dy * dy)
    return edges
