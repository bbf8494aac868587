"""What is drawn: prompts that name the erased concept, and prompts that do not."""

from pipeline.config.schema import ConceptConfig

CONCEPT = ConceptConfig(name="cat", anchor="dog")
NAMED = ("a photograph of a cat on a beach", "a cat beside a fishing boat", "two cats asleep on a red sofa")
OTHER = ("a photograph of a castle on a beach", "a bicycle beside a fishing boat", "two guitars on a red sofa")
MIXED = tuple(prompt for pair in zip(NAMED, OTHER, strict=True) for prompt in pair)
