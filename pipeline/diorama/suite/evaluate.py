"""``lacuna evaluate diorama``: how well the built-in model obeys, and how well its detectors see, judged by B.

Unit of work: a batch of pictures, kept on disk, so that an interrupted evaluation goes on. Knows nothing of erasure.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pipeline.diorama import DIORAMA_PATH
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.render import FONT, render
from pipeline.diorama.suite.card import card
from pipeline.diorama.suite.labelled import judge_labelled, load_labelled
from pipeline.diorama.suite.prompts import Demand, demands
from pipeline.diorama.world import EVALUATION_SEEDS, OBJECTS, PLAIN, STYLES, sample_scene
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluation.results import machine, write_result
from pipeline.evaluation.statistics import count, frechet, kappa, macro_f1
from pipeline.models.dtype import fast_dtype
from pipeline.models.load import DTYPES
from pipeline.paths import folder_on_disk

_BATCH = 16
_STEPS = 20
_GUIDANCE = 4.0
_RENDERS_PER_STYLE = 500
_RENDER_SEEDS = EVALUATION_SEEDS + (1 << 30)  # beyond the scenes whose captions are asked for


def evaluate_diorama(
    out_dir: str | Path,
    images: int = 2000,
    model: str | Path = DIORAMA_PATH,
    guidance: float = _GUIDANCE,
    results: Path | None = None,
) -> str:
    """Generate about *images* pictures, judge them, and write scores.json, card.md and contact.png to *out_dir*, and
    the scores to *results* (``pipeline.evaluation.results``).

    Returns the card (Markdown). Raises ``StoreError`` where the folder cannot be written, and ``ConfigError`` where it
    was begun with other weights or settings.
    """
    out = folder_on_disk(out_dir)
    try:
        return _evaluate(out, images, model, guidance, results)
    except OSError as error:
        raise StoreError(f"{error.filename or out}: {error.strerror or error}") from error


def _evaluate(out: Path, images: int, model: str | Path, guidance: float, results: Path | None) -> str:
    here = machine()
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    dtype = fast_dtype("cpu")  # as the quickstart
    settings = {
        "images": images,
        "guidance": guidance,
        "steps": _STEPS,
        "dtype": str(dtype),
        "weights": _fingerprint(Path(model)),
    }
    stamp = out / "settings.json"
    if stamp.exists() and json.loads(stamp.read_text()) != settings:
        raise ConfigError(f"{out}: begun with {stamp.read_text()}, asked for {settings}; use another folder")
    stamp.write_text(json.dumps(settings))

    asked = demands(images)
    pictures, speed = _generate(out, asked, Path(model), guidance, DTYPES[dtype])
    detectors = {"A": DioramaDetector.load("a"), "B": DioramaDetector.load("b")}
    scores: dict[str, Any] = {"settings": settings, "machine": _machine(), "pictures per second": speed}
    scores |= {"renders": judge_renders(detectors)} if FONT.exists() else {"renders": None}
    scores |= judge_generated(detectors, pictures, asked)
    scores["labelled"] = judge_labelled(detectors, load_labelled())
    training = Path(model) / "training.json"
    scores["training"] = json.loads(training.read_text()) if training.exists() else None
    plain = json.dumps(scores, indent=2, default=_plain)
    (out / "scores.json").write_text(plain + "\n")
    if results:
        figures = json.loads(plain, parse_constant=lambda _: None)  # no speed where all pictures were there
        what = "How well the built-in model obeys, and how well its detectors see"
        write_result(results, what=what, config=figures.pop("settings"), figures=figures, environment=here)
    sheet = contact_sheet(pictures, asked).quantize(256, dither=Image.Dither.NONE)  # a quarter of the bytes
    sheet.save(out / "contact.png", optimize=True)
    text = card(scores)
    (out / "card.md").write_text(text)
    return text


def _generate(
    out: Path, asked: list[Demand], model: Path, guidance: float, dtype: torch.dtype
) -> tuple[np.ndarray, float]:
    """All pictures, uint8 (N, 64, 64, 3), and how many a second were made here (NaN if none were missing)."""
    files = [out / "pictures" / f"{start:05d}.npy" for start in range(0, len(asked), _BATCH)]
    missing = [i for i, path in enumerate(files) if not path.exists()]
    seconds = made = 0.0
    if missing:
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(model, dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        for i in tqdm(missing, desc="pictures", unit="batch", mininterval=10):
            batch = asked[i * _BATCH : (i + 1) * _BATCH]
            started = time.monotonic()
            pixels = pipe(
                [item.prompt for item in batch],
                num_inference_steps=_STEPS,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(item.seed) for item in batch],
                output_type="np",
            ).images
            seconds, made = seconds + time.monotonic() - started, made + len(batch)
            temporary = files[i].with_suffix(".partial.npy")
            np.save(temporary, np.rint(pixels * 255).astype(np.uint8))
            temporary.rename(files[i])
    return np.concatenate([np.load(path) for path in files]), made / seconds if seconds else float("nan")


def judge_renders(detectors: dict[str, DioramaDetector]) -> dict[str, Any]:
    """Both detectors on fresh renders of seeds that no training saw: F1 in all and by style, false alarms, places."""
    scenes = [
        sample_scene(_RENDER_SEEDS + k * _RENDERS_PER_STYLE + i, style=style)
        for k, style in enumerate((PLAIN, *STYLES))
        for i in range(_RENDERS_PER_STYLE)
    ]
    images = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    true = _present([scene.objects for scene in scenes])
    styles = np.array([scene.style for scene in scenes])
    result: dict[str, Any] = {"pictures": len(scenes)}
    for name, detector in detectors.items():
        seen = _seen(detector, images)
        result[name] = {
            "macro F1": macro_f1(seen, true),
            "macro F1 by style": {s: macro_f1(seen[styles == s], true[styles == s]) for s in (PLAIN, *STYLES)},
            "objects found": count(seen[true]),
            "pictures with a false alarm": count((seen & ~true).any(axis=1)),
            "style right": count(_named(detector.styles_known, detector.styles(images)) == styles),
            "background right": count(
                _named(detector.backgrounds_known, detector.backgrounds(images))
                == np.array([scene.background for scene in scenes])
            ),
        }
    return result


def judge_generated(detectors: dict[str, DioramaDetector], pictures: np.ndarray, asked: list[Demand]) -> dict[str, Any]:
    """What B sees of what was asked for, by cell; A's agreement with B; Frechet distances in B's features."""
    images = torch.from_numpy(pictures)
    judge = detectors["B"]
    seen, by_a = _seen(judge, images), _seen(detectors["A"], images)
    wanted = _present([item.objects for item in asked])
    found = (seen & wanted).sum(axis=1) == wanted.sum(axis=1)
    extra = (seen & ~wanted).any(axis=1)
    cells = np.array([item.cell for item in asked])
    style_right = _named(judge.styles_known, judge.styles(images)) == np.array([item.style for item in asked])
    place_named = np.array([bool(item.background) for item in asked])
    place_right = _named(judge.backgrounds_known, judge.backgrounds(images)) == np.array(
        [item.background for item in asked]
    )
    pick: Callable[..., np.ndarray] = lambda *names: np.isin(cells, names)  # noqa: E731
    synonyms = pick("synonym")
    with_synonyms = np.array([item.objects[0] if item.objects else "" for item in asked])
    twins = pick("one") & np.isin(with_synonyms, np.unique(with_synonyms[synonyms]))
    result: dict[str, Any] = {
        "all objects asked for are there": {
            "one object": count(found[pick("one")]),
            "two objects": count(found[pick("two")]),
            "three objects": count(found[pick("three")]),
            "synonym": count(found[synonyms]),
            "plain name of the same objects": count(found[twins]),
            "implied, all of them": count(found[pick("implied")]),
            "implied, each": count(seen[pick("implied")][wanted[pick("implied")]]),
            "one object in a style": count(found[pick("style")]),
        },
        "an object that was not asked for": count(extra[~pick("implied", "caption")]),
        "style right": count(style_right[pick("style")]),
        "plain where no style was asked for": count(style_right[~pick("style", "caption")]),
        "background right": count(place_right[place_named]),
        "A and B": {
            "same objects in the picture": count((seen == by_a).all(axis=1)),
            "kappa per object": kappa(seen, by_a),
        },
    }
    if FONT.exists() and pick("caption").sum() > 1:  # one picture has no spread to compare
        ours = judge.features(images[torch.from_numpy(pick("caption"))]).numpy()
        real = [
            judge.features(
                torch.from_numpy(np.stack([render(sample_scene(start + i)) for i in range(len(ours))]))
            ).numpy()
            for start in (_RENDER_SEEDS + (1 << 20), _RENDER_SEEDS + (1 << 21))
        ]
        result["frechet"] = {
            "generated to renders": frechet(ours, real[0]),
            "renders to renders": frechet(real[1], real[0]),
            "pictures on each side": len(ours),
        }
    return result


def contact_sheet(pictures: np.ndarray, asked: list[Demand]) -> Image.Image:
    """The first pictures of every cell, a row each, enlarged threefold."""
    rows = []
    for cell in dict.fromkeys(item.cell for item in asked):
        rows_of = [picture for picture, item in zip(pictures, asked, strict=True) if item.cell == cell][:12]
        rows_of += [np.full_like(pictures[0], 255)] * (12 - len(rows_of))
        rows.append(np.concatenate(rows_of, axis=1))
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    return sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST)


def _seen(detector: DioramaDetector, images: torch.Tensor) -> np.ndarray:
    """Boolean (N, 64): which objects are at or over their threshold."""
    limits = np.array([detector.thresholds[name] for name in OBJECTS])
    return detector.probabilities(images)[:, : len(OBJECTS)].numpy() >= limits


def _present(objects: list[tuple[str, ...]]) -> np.ndarray:
    """Boolean (N, 64): which objects each tuple names."""
    return np.array([[name in row for name in OBJECTS] for row in objects])


def _named(names: tuple[str, ...], probabilities: torch.Tensor) -> np.ndarray:
    """The likeliest name of each row."""
    likeliest: np.ndarray = np.array(names)[probabilities.argmax(dim=-1).numpy()]
    return likeliest


def _fingerprint(folder: Path) -> str:
    """Sixteen hex digits over all weights that draw."""
    digest = hashlib.sha256()
    for part in ("text_encoder", "unet", "vae"):
        for path in sorted((folder / part).glob("*.safetensors")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _machine() -> str:
    return f"{os.cpu_count()} CPUs ({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def _plain(value: Any) -> Any:
    return vars(value) | {"rate": value.rate}
