"""The erasure methods that a recipe may name, as ``module:Class``, so that listing them imports nothing."""

METHODS: dict[str, str] = {
    "uce": "pipeline.erasure.uce:UCE",
    "esd": "pipeline.erasure.esd:ESD",
    "weights": "pipeline.erasure.weights:Weights",
    "safree": "pipeline.erasure.safree:SAFREE",
    "semantic_surgery": "pipeline.erasure.semantic_surgery:SemanticSurgery",
    "rece": "pipeline.erasure.rece:RECE",
    "speed": "pipeline.erasure.speed:SPEED",
    "cease": "pipeline.erasure.cease:CEASE",
    "cease_joint": "pipeline.erasure.cease_joint:CEASEJoint",
    "adavd": "pipeline.erasure.adavd:AdaVD",
    "sld": "pipeline.erasure.sld:SLD",
    "negative_prompt": "pipeline.erasure.negative_prompt:NegativePrompt",
}
