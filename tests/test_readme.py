"""The README's `fit` snippet runs as it stands, and the files that it links to exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.medium
def test_the_fit_snippet_runs_and_gives_features() -> None:
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippet is not None
    names: dict[str, object] = {}
    exec(compile(snippet[1], "README.md", "exec"), names)
    assert names["features"].shape == (1, 32)  # type: ignore[attr-defined]
    assert int(names["model"].optimizer.iterations) == 36  # type: ignore[attr-defined]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
