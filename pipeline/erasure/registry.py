"""The erasure methods that a recipe may name, as ``module:Class``, so that listing them imports nothing."""

METHODS: dict[str, str] = {
    "uce": "pipeline.erasure.uce:UCE",
    "cease": "pipeline.erasure.cease:CEASE",
    "cease_joint": "pipeline.erasure.cease_joint:CEASEJoint",
}
