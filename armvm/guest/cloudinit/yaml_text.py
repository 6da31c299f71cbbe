"""YAML that a user gives, read as data, with errors that name the option and the line."""

from __future__ import annotations

from typing import Any

from armvm.base.errors import ConfigError


def load(text: str, option: str) -> Any:
    """Return the value of a YAML document. *option* is where the user gave it.

    Raises ConfigError for invalid YAML, with the line.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(
            f"{option}: invalid YAML: {where}{error.problem or error}",
            hint="check its indentation and quotes",
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{option}: invalid YAML: line {line}: invalid character {error.character:#04x}"
        ) from error
    # PyYAML lets some errors, such as month 13 or very deep nesting, through as Python errors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{option}: invalid YAML: {type(error).__name__}: {error}") from error


def has_alias(text: str) -> bool:
    """Return whether a valid YAML document refers to an anchor."""
    import yaml

    return any(isinstance(one, yaml.AliasEvent) for one in yaml.parse(text, yaml.SafeLoader))
