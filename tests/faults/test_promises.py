"""Every promise in docs/promises.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "promises.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def defined_in(path: Path) -> set[str]:
    """Tests of a module by name; `TestX = Machine.TestCase` too."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assigned = {
        target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
    }
    return functions | assigned


def test_every_test_that_a_promise_names_exists() -> None:
    missing = [f"{path}::{name}" for path, name in NAMED if not (ROOT / path).exists() or name not in defined_in(ROOT / path)]
    assert missing == []
    assert all(name.startswith(("test_", "Test")) for _, name in NAMED)


def test_every_promise_names_a_test() -> None:
    promised = TEXT.split("## What is not promised")[0]
    paragraphs = [part for part in promised.split("\n\n") if part.lstrip("# \n").startswith("**") or "\n**" in part]
    assert len(paragraphs) > 15
    assert [part.splitlines()[0] for part in paragraphs if "::test_" not in part and "::Test" not in part] == []
