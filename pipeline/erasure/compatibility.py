"""Whether a config's recipe, and how it has prompts read, can work on its model, told from the model's class before any
weights are read.

The rules themselves are ``recipe_steps`` and ``check_reading``. Imports torch only where there is something to check.
"""

from pipeline.config.schema import Config
from pipeline.config.sections.generation import LongPrompts, PromptSyntax


def check_recipe(config: Config) -> None:
    """Refuse, in one line, a recipe with a step that the model's family or the sampling does not allow, and a way of
    reading prompts that the family does not offer.

    Reads the model's model_index.json alone, which is fetched of a model on the hub. Raises ``ConfigError`` as
    ``find_model``, ``recipe_steps`` and ``check_reading`` do.
    """
    generation = config.generation
    as_ever = generation.long_prompts is LongPrompts.truncate and generation.prompt_syntax is PromptSyntax.plain
    if config.erasure.recipe or not as_ever:
        from pipeline.erasure.recipe import recipe_steps
        from pipeline.models.find import find_model
        from pipeline.models.reading import check_reading

        family = find_model(config.model).family()
        check_reading(generation, family)
        recipe_steps(config, family)


def check_recipe_here(config: Config) -> None:
    """Do so if this machine alone can tell: no network is used, and pictures may be made elsewhere.

    So nothing is said of models that are not here, nor of methods and families of the user's own, which need not be.
    """
    from pipeline.models.find import is_here

    if (
        config.model.family is None
        and is_here(config.model)
        and not any(":" in step.method for step in config.erasure.recipe)
    ):
        check_recipe(config)
