"""Each line of the sampling functions is explained, and nothing else is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from sdtui.scratch.explanations import EXPLANATIONS, code_of, explanation_of
from sdtui.scratch.image_to_image import image_to_image
from sdtui.scratch.text_to_image import text_to_image

FUNCTIONS = (text_to_image, image_to_image)
LONGEST = 480
"""Characters of an explanation: five lines beside the code."""


def lines_of(function: Callable[..., Any]) -> list[str]:
    """The lines of a function that can run, as they stand in the file."""
    inner = inspect.unwrap(function)
    rows, first = inspect.getsourcelines(inner)
    numbers = sorted({line for _, _, line in inner.__code__.co_lines() if line and line >= first})
    body = [number for number in numbers if not rows[number - first].lstrip().startswith(("@", "def "))]
    return [rows[number - first] for number in body]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_line_that_can_run_is_explained(function: Callable[..., Any]) -> None:
    lines = lines_of(function)
    assert len(lines) >= 25
    assert [line for line in lines if not explanation_of(line)] == []


def test_nothing_is_explained_that_is_not_there() -> None:
    assert set(EXPLANATIONS) == {code_of(line) for function in FUNCTIONS for line in lines_of(function)}


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_explanations_are_short_sentences(code: str) -> None:
    text = EXPLANATIONS[code]
    assert text[0].isupper() and text.endswith(".") and "  " not in text and "\n" not in text and len(text) <= LONGEST


def test_sources_that_are_named_are_those_of_the_list() -> None:
    import re

    from sdtui.scratch import explanations

    known = set(re.findall(r"^    (\w+(?: et al\.| & \w+)) +(\d{4})", explanations.__doc__ or "", re.MULTILINE))
    named = set(re.findall(r"(\w+(?: et al\.| & \w+)) (\d{4})", " ".join(EXPLANATIONS.values())))
    assert named == known and len(known) >= 9


@pytest.mark.parametrize(
    ("row", "code"),
    [("        x = 1  # (2, 77)\n", "x = 1"), ('    y = "a # b"', 'y = "a # b"'), ("", "")],
)
def test_a_line_is_known_without_indentation_and_comment(row: str, code: str) -> None:
    assert code_of(row) == code


def test_another_line_has_no_explanation() -> None:
    assert explanation_of("import torch") == ""
