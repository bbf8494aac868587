"""The run as ``ray.util.metrics`` (exported with the prefix ``ray_``), set by the driver from the snapshots it polls.

So a worker is never slowed by a metric, and the figures are those that the progress bar shows.
"""

import logging
import string
from typing import Any
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge

from pipeline.cluster.protocol import Snapshot

log = logging.getLogger(__name__)


class Metrics:
    """Counters never go back, so a new coordinator, which counts images from nought, adds to what was counted.

    A tag holds ASCII alone, so other characters of *output* are percent-encoded.
    """

    def __init__(self, output: str):
        tags = {"output": quote(output, safe=string.printable, errors="surrogateescape")}
        self._images = _tagged(Counter("lacuna_images", "Images generated, further seeds included", ("output",)), tags)
        self._device = _tagged(
            Counter("lacuna_device_seconds", "Seconds that devices were busy denoising and decoding", ("output",)), tags
        )
        self._shards = _tagged(Gauge("lacuna_shards", "Shards by state", ("output", "state")), tags)
        self._samples = _tagged(Gauge("lacuna_samples", "Committed samples by status", ("output", "status")), tags)
        self._workers = _tagged(Gauge("lacuna_workers", "Workers known to the coordinator", ("output",)), tags)
        self._seen_images, self._seen_device = 0, 0.0
        self._broken = False

    def update(self, snapshot: Snapshot) -> None:
        """Publish one snapshot. Where that fails, for whatever reason, the run goes on without metrics."""
        if self._broken:
            return
        try:
            self._publish(snapshot)
        except Exception as error:
            self._broken = True
            log.warning("metrics are not published any more: %s", error)

    def _publish(self, snapshot: Snapshot) -> None:
        if snapshot.images < self._seen_images:
            self._seen_images, self._seen_device = 0, 0.0
        if snapshot.images > self._seen_images:
            self._images.inc(snapshot.images - self._seen_images)
        if snapshot.device_seconds > self._seen_device:
            self._device.inc(snapshot.device_seconds - self._seen_device)
        self._seen_images, self._seen_device = snapshot.images, snapshot.device_seconds
        given_up = len(snapshot.given_up)
        pending = snapshot.shards - snapshot.done - given_up - snapshot.leased
        states = {"done": snapshot.done, "leased": snapshot.leased, "given_up": given_up, "pending": max(0, pending)}
        for state, number in states.items():
            self._shards.set(number, {"state": state})
        for status, number in snapshot.counts.items():
            self._samples.set(number, {"status": status})
        self._workers.set(snapshot.workers)


def _tagged(metric: Any, tags: dict[str, str]) -> Any:
    metric.set_default_tags(tags)
    return metric
