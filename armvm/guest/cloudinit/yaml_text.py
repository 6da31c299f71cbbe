"""YAML that a user gives, read as data, with errors that name the option and the line."""

from __future__ import annotations

from typing import Any

from armvm.base.errors import ConfigError
from armvm.base.limits import MAX_BITS, MAX_DEPTH


def load(text: str, option: str, *, aliases: bool = True) -> Any:
    """Return the value of a YAML document. *option* is where the user gave it.

    Raises ConfigError for invalid YAML, with the line; without *aliases*, also for one.
    """
    import yaml

    def invalid(what: str, mark: Any) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=what, problem_mark=mark)

    class Loader(yaml.SafeLoader):
        """Refuses what PyYAML loads but cannot write, and what takes exponential time."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Return the next node."""
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            if not aliases and self.check_event(yaml.AliasEvent):
                raise invalid("aliases are not supported: write the value again", mark)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise invalid("nested too deeply", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def flatten_mapping(self, node: Any) -> None:
            """Resolve a mapping's merge keys."""
            super().flatten_mapping(node)
            # Older versions of PyYAML keep what is merged twice: its size doubles at each level.
            node.value = list({id(key): (key, value) for key, value in node.value}.values())

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            """Return a node's value."""
            try:
                value = super().construct_object(node, deep)
            # PyYAML lets some errors, such as month 13, through as Python errors.
            except (LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
                why = f": {error}" if isinstance(error, ValueError) else ""
                what = f"invalid {node.tag.rpartition(':')[2]}{why}"
                raise invalid(what, node.start_mark) from error
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise invalid("integer out of range", node.start_mark)
            return value

    try:
        return yaml.load(text, Loader)  # noqa: S506 -- a SafeLoader
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{option}: invalid YAML: {type(error).__name__}: {error}") from error
