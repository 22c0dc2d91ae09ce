"""YAML by version 1.2's core schema (yaml.org/spec/1.2.2, 10.3), which PyYAML does not know: its rules are 1.1's.

So `017` is 17, `1e-3` a number, and `1:30`, `1_000`, `yes`, `on` and `2024-01-01` are texts.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
DEPTH = 20  # levels of a file; settings have four
# Kind of scalar, its pattern, and the characters that it begins with.
SCALARS = (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        ),
        list("-+.0123456789"),
    ),
)
PATTERNS = {kind: pattern for kind, pattern, _ in SCALARS}


class Loader(yaml.SafeLoader):
    """Composes nodes whose scalars are tagged by the core schema, no deeper than `DEPTH`."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Count the levels: Python's own limit would be a traceback."""
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"more than {DEPTH} levels, one in the other", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Quotes the texts that the core schema would take for something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _kind, _pattern, _first in SCALARS:
    for _reader in (Loader, Dumper):
        _reader.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"(?:{_pattern.pattern})$"), _first)


def compose(text: str) -> yaml.Node | None:
    """Return the node that a text of YAML is, or None for an empty one.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.compose(text, Loader)


def value_of(node: yaml.Node) -> Any:
    """Return the scalar, or the list of scalars, that a node is.

    Raises:
        ValueError: it is neither, or has a tag that is not of the core schema or that its text does not fit.
    """
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
        return [_scalar(item) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(TAG)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("no scalar")
    text = node.value
    if kind == "str":
        return text
    if kind not in PATTERNS or not PATTERNS[kind].fullmatch(text):
        raise ValueError("another tag")
    if kind == "int":
        return int(text[:400], 0 if text[:2] in ("0o", "0x") else 10)  # Python's own end, and far beyond any range
    if kind == "float":
        return float(text.replace(".", "", 1) if text.lower().endswith(("inf", "nan")) else text)
    return text.lower() == "true" if kind == "bool" else None
