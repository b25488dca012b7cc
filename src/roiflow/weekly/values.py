"""The text of params.yaml for a run: other values at some keys, every comment kept."""

from collections.abc import Mapping
from pathlib import Path

from roiflow.data.weeks import Week
from roiflow.errors import ParamsError
from roiflow.params import parse_params

PARAMS = Path("params.yaml")


def with_run(params: str, source: str, week: str) -> str:
    """The text of params.yaml for a run; errors as in `with_values`.

    Raises UnknownWeek where there is no such week.
    """
    text = with_values(params, {"ingest.source": source, "ingest.week": week})
    Week.parse(week)
    return text


def with_values(params: str, values: Mapping[str, str | float]) -> str:
    """The text of params.yaml with other values at keys such as ingest.week.

    All else, comments included, stays. Raises ParamsError, naming key and value, where the result
    is not a valid params.yaml.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    editor = YAML()
    editor.preserve_quotes = True
    # Long lines stay in one: broken, they would be a change that nobody made.
    editor.width = 1000
    try:
        content = editor.load(params)
    except YAMLError as error:
        raise ParamsError(f"{PARAMS}: not valid YAML: {error}") from None
    for key, value in values.items():
        *sections, name = key.split(".")
        inside = content
        for number, section in enumerate(sections):
            inside = inside.get(section) if isinstance(inside, dict) else None
            if not isinstance(inside, dict):
                missing = ".".join(sections[: number + 1])
                raise ParamsError(f"{PARAMS}: {missing}: the section is missing")
        inside[name] = value
    text = StringIO()
    editor.dump(content, text)
    # Only to check: what is returned is the text, with its comments.
    parse_params(text.getvalue(), PARAMS)
    return text.getvalue()
