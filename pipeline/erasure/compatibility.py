"""Whether a config's recipe can work on its model, told from the model's class before any weights are read.

The rule itself is ``recipe_steps``. Imports torch only where a recipe has steps to check.
"""

from pipeline.config.schema import Config


def check_recipe(config: Config) -> None:
    """Refuse, in one line, a recipe with a step that the model's family or the sampling does not allow.

    Reads the model's model_index.json alone, which is fetched of a model on the hub. Raises ``ConfigError`` as
    ``find_model`` and ``recipe_steps`` do.
    """
    if config.erasure.recipe:
        from pipeline.erasure.recipe import recipe_steps
        from pipeline.models.find import find_model

        recipe_steps(config, find_model(config.model).family())


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
