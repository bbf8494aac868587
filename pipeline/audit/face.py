"""Faces: is a certain person's face in a picture, as reference pictures of the user's own show it?

Detection, five landmarks and a 128-number embedding of each face are dlib's (King 2009, JMLR 10:1755), of the package
``dlib-bin`` (Boost Software License). The models, by D. King under CC0-1.0, are in ``face-recognition-models`` (0.3.0,
100 MB). Of these the one of 68 landmarks, which was trained on pictures for research alone, is not used.

Two embeddings nearer than 0.6 are one person's by dlib's author, who found 99.38 % of pairs right on Labeled Faces in
the Wild; among children, and people of whom the training set has few, strangers come nearer than that.

A score is 1 - d / 1.2, with d the distance of the nearest face to the nearest reference: 0.5 at 0.6. Faces are found
from the front, from 80 pixels on (40 with ``upsample``); turned or smaller ones are missed, and so are drawn ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pipeline.audit.detector import Detector, Sight
from pipeline.audit.packages import file_of_package
from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError

PACKAGE = "face_recognition_models"
LANDMARKS, EMBEDDER = "models/shape_predictor_5_face_landmarks.dat", "models/dlib_face_recognition_resnet_model_v1.dat"
FAR = 1.2  # the distance at which a score is 0
THRESHOLD = 0.5


class Face(Detector):
    """Judges concepts of ``kind: identity`` that have ``references``, each with one face; it judges no other.

    It runs on the CPU whatever the device.
    """

    licence = "CC0-1.0"

    def __init__(self, device: str, upsample: int = 0):
        """*upsample* doubles a picture's sides so often before faces are looked for. Raise ``ConfigError`` where it is
        not 0 to 2, and where the extra is not installed."""
        super().__init__(device)
        if not 0 <= upsample <= 2:
            raise ConfigError(f"options.upsample: is {upsample}; expected 0, 1 or 2")
        self.upsample = upsample
        self.landmarks, self.embedder = (file_of_package("face", PACKAGE, name) for name in (LANDMARKS, EMBEDDER))
        file_of_package("face", "dlib", "__init__.py")
        import dlib

        self._find: Any = dlib.get_frontal_face_detector()
        self._landmarks: Any = dlib.shape_predictor(str(self.landmarks))
        self._embed: Any = dlib.face_recognition_model_v1(str(self.embedder))
        self._references: dict[str, np.ndarray] = {}

    def files(self) -> Sequence[Path]:
        return [self.landmarks, self.embedder]

    def about(self) -> dict[str, str]:
        return {**super().about(), "model": "dlib's face embeddings"}

    def knows(self, term: Term) -> bool:
        """Read the references of a *term* that it knows. Raises ``ConfigError`` for one without exactly one face."""
        if term.kind is not Kind.identity or not term.references:
            return False
        if term not in self._references:
            self._references[term] = np.stack([self._reference(term, path) for path in term.references])
        return True

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        return self.see(images, terms).scores

    def see(self, images: np.ndarray, terms: Sequence[Term]) -> Sight:
        scores = np.zeros((len(images), len(terms)), np.float32)
        boxes = np.full((len(images), len(terms), 4), np.nan, np.float32)
        for i, image in enumerate(images):
            for box, embedding in self._faces(image):
                for j, term in enumerate(terms):
                    distance = np.linalg.norm(self._references[term] - embedding, axis=1).min()
                    score = max(0.0, 1 - float(distance) / FAR)
                    if score > scores[i, j]:
                        scores[i, j], boxes[i, j] = score, box
        return Sight(scores, boxes)

    def _faces(self, image: np.ndarray) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
        """Return the box of each face in uint8 ``(H, W, 3)``, cut to the picture, and its embedding, ``(128,)``."""
        image = np.ascontiguousarray(image)
        height, width = image.shape[:2]
        found = []
        for face in self._find(image, self.upsample):
            x0, y0, x1, y1 = face.left(), face.top(), face.right() + 1, face.bottom() + 1
            embedding = self._embed.compute_face_descriptor(image, self._landmarks(image, face))
            found.append(((max(0, x0), max(0, y0), min(width, x1), min(height, y1)), np.array(embedding)))
        return found

    def _reference(self, term: Term, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                faces = self._faces(np.array(ImageOps.exif_transpose(image).convert("RGB")))
        except OSError as error:
            raise ConfigError(f"references of {str(term)!r}: {path}: is no picture that can be read: {error}") from None
        if len(faces) != 1:
            raise ConfigError(f"references of {str(term)!r}: {path}: {len(faces)} faces are found in it; expected one")
        return faces[0][1]
