"""What a concerned prompt becomes: its text with the anchors in the concepts' place, and the vector of that.

Besides its tokens SDXL, SD3 and FLUX make one vector of a whole prompt (``pooled``), which modulates every layer. It
has no place in the picture, so it cannot be switched in space as attention can; methods that switch attention swap it
for concerned prompts as a whole, before sampling. Knows nothing of attention.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.concepts.words import plurals
from pipeline.erasure.gate.text import Hit
from pipeline.erasure.method import Prompts
from pipeline.erasure.tokens import replace_spans
from pipeline.models.family import Conditioning, Family

CHUNK = 8  # encoded at a time, padded, so that what a text becomes does not depend on the others


def replaced(text: str, hits: Sequence[Hit]) -> tuple[str, list[tuple[int, int]]]:
    """Return *text* with each hit's anchor in its place, in its number, and the character spans of the anchors."""
    spans = [(hit.start, hit.stop) for hit in hits]
    anchors = []
    for hit in hits:
        anchors.append(plurals(hit.concept.anchor)[0] if hit.plural and hit.concept.anchor else hit.concept.anchor)
    return replace_spans(text, spans, anchors)


def encode_chunked(family: Family, texts: Sequence[str]) -> Conditioning:
    """Encode *texts* in chunks of a fixed size."""
    chunks = [list(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    parts = [family.encode(c + [""] * (CHUNK - len(c))).rows(slice(0, len(c))) for c in chunks]
    return Conditioning.cat(parts)


def swap_pooled(family: Family, prompts: Prompts, hits: Sequence[Sequence[Hit]]) -> Prompts:
    """Return *prompts* with the pooled vectors of those that have *hits*.

    Where words mean a concept the vector is that of the text with the anchors in their place.
    A concept that is only implied is taken from the vector x, so far as x lies beyond its anchor a in the direction u
    from anchor to concept: x - relu((x - a) u) u.
    """
    before = prompts.positive.pooled
    if before is None or not any(hits):
        return prompts
    pooled = before.clone()
    meant = {i: [hit for hit in found if hit.meant] for i, found in enumerate(hits)}
    rows = [i for i, found in meant.items() if found]
    if rows:
        others = encode_chunked(family, [replaced(prompts.texts[i], meant[i])[0] for i in rows])
        assert others.pooled is not None
        pooled[rows] = others.pooled
    for i, found in enumerate(hits):
        said = {hit.concept.name for hit in meant[i]}
        for concept in {hit.concept.name: hit.concept for hit in found if hit.concept.name not in said}.values():
            anchor = family.summary(f"a {concept.anchor}" if concept.anchor else "").float()
            u = torch.nn.functional.normalize(family.summary(f"a {concept.name}").float() - anchor, dim=0)
            beyond = ((pooled[i].float() - anchor) @ u).relu()
            pooled[i] = (pooled[i].float() - beyond * u).to(pooled.dtype)
    return prompts.changed(positive=replace(prompts.positive, pooled=pooled))
