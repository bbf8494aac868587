"""What ``prompts`` of a config may not say, told without opening them."""

import string

from pipeline.config.problem import Problem, check_range, show
from pipeline.config.schema import PromptsConfig
from pipeline.errors import nearest
from pipeline.registry import is_class_name

STEERING = ("prompt", "seed", "negative_prompt", "size", "width", "height")  # what a column can be, beside passing on


def check_prompts(prompts: PromptsConfig) -> None:
    """Raise ``Problem`` for the first setting of *prompts* that cannot work."""
    if prompts.source is not None and prompts.template is not None:
        raise Problem("prompts", "has both source and template; expected one of them")
    if prompts.source is None and prompts.template is None:
        raise Problem("prompts", "has neither source nor template; expected one of them")
    if prompts.source is not None and not prompts.source.strip():
        raise Problem("prompts.source", "is empty; expected a file, a URL, hf://NAME or module:Class")
    if prompts.options and not (prompts.source and is_class_name(prompts.source)):
        raise Problem("prompts.options", "are given, but only a source that is module:Class takes any")
    _columns(prompts)
    check_range("prompts.images_per_prompt", prompts.images_per_prompt, 1)
    if prompts.limit is not None:
        check_range("prompts.limit", prompts.limit, 1)
    if prompts.template is None:
        if prompts.values:
            raise Problem("prompts.values", "are given without prompts.template; a source takes none")
        return
    if not prompts.template.strip():
        raise Problem("prompts.template", "is empty; expected a text such as 'a {animal} on the {place}'")
    wanted = template_fields(prompts.template)
    for name in wanted:
        if name not in prompts.values:
            near = nearest(name, prompts.values)
            raise Problem("prompts.template", f"{{{name}}} has no list in prompts.values{near}; expected one there")
    for name, values in prompts.values.items():
        if name not in wanted:
            raise Problem(f"prompts.values.{name}", f"is no field of the template{nearest(name, wanted)}")
        if not values:
            raise Problem(f"prompts.values.{name}", "is an empty list; expected at least one value")
    shortest = {name: min(values, key=lambda value: len(value.strip())) for name, values in prompts.values.items()}
    if not string.Formatter().vformat(prompts.template, (), shortest).strip():
        raise Problem("prompts.template", "makes a blank prompt where each field is blank; expected a text beside them")


def template_fields(template: str) -> list[str]:
    """Return the distinct field names of a template in order; ``Problem`` for braces that name none."""
    names = []
    try:
        for _, name, spec, conversion in string.Formatter().parse(template):
            if name is None:
                continue
            if not name.isidentifier() or spec or conversion:
                raise Problem("prompts.template", f"has the field {{{name}}}; expected a name, such as {{animal}}")
            names.append(name)
    except ValueError as error:
        raise Problem("prompts.template", f"{error}; write {{{{ and }}}} for braces that are no field") from None
    return list(dict.fromkeys(names))


def _columns(prompts: PromptsConfig) -> None:
    columns = prompts.columns
    if columns and prompts.template is not None:
        raise Problem("prompts.columns", "are given with prompts.template, whose columns are its fields")
    for key, value in columns.items():
        here = f"prompts.columns.{key}"
        if key == "pass":
            if value != "all" and not isinstance(value, list):
                raise Problem(here, f"is {show(value)}; expected all, or a list of column names")
            for i, name in enumerate(value if isinstance(value, list) else []):
                if name in value[:i]:
                    raise Problem(f"{here}[{i}]", f"{name!r} is named twice")
        elif key not in STEERING:
            known = (*STEERING, "pass")
            raise Problem(here, f"unknown key{nearest(key, known)}; expected one of {', '.join(known)}")
        elif value == "" or isinstance(value, list) or (value is None and key == "prompt"):
            or_null = "" if key == "prompt" else " or null"
            raise Problem(here, f"is {show(value)}; expected the name of a column{or_null}")
    meant = {"prompt": "prompt", **columns} if columns else {}
    roles: dict[str, str] = {}  # column -> what it is
    for role in STEERING:
        column = str(meant.get(role) or "")
        if column and {roles.setdefault(column, role), role} not in ({role}, {"width", "height"}):
            raise Problem(
                f"prompts.columns.{role}", f"{column!r} is the {roles[column]} already; expected another column"
            )
    if (columns.get("width") is None) != (columns.get("height") is None):
        raise Problem("prompts.columns", "names width or height alone; expected both, or size")
    if columns.get("width") is not None and columns.get("size") is not None:
        raise Problem("prompts.columns", "names size beside width and height; expected one of them")
