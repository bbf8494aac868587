"""The erasure methods that a recipe may name, as ``module:Class``, so that listing them imports nothing."""

METHODS: dict[str, str] = {
    "uce": "pipeline.erasure.methods.uce:UCE",
    "esd": "pipeline.erasure.methods.esd:ESD",
    "weights": "pipeline.erasure.methods.weights:Weights",
    "safree": "pipeline.erasure.methods.safree:SAFREE",
    "semantic_surgery": "pipeline.erasure.methods.semantic_surgery:SemanticSurgery",
    "rece": "pipeline.erasure.methods.rece:RECE",
    "speed": "pipeline.erasure.methods.speed:SPEED",
    "cease": "pipeline.erasure.cease.method:CEASE",
    "cease_joint": "pipeline.erasure.cease.joint:CEASEJoint",
    "adavd": "pipeline.erasure.methods.adavd:AdaVD",
    "sld": "pipeline.erasure.methods.sld:SLD",
    "negative_prompt": "pipeline.erasure.methods.negative_prompt:NegativePrompt",
}
