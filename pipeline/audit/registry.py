"""The detectors that a config may name, as ``module:Class``, so that listing them imports nothing."""

DETECTORS: dict[str, str] = {
    "diorama": "pipeline.diorama.audit:DioramaAudit",
    "nudenet": "pipeline.audit.nudenet:NudeNet",
}
