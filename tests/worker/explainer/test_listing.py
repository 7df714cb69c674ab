"""Functions as they stand in their files, and running them line by line, whatever their lines are like."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from sdtui.scratch.image_to_image import image_to_image
from sdtui.scratch.text_to_image import text_to_image
from sdtui.worker.errors import Cancelled
from sdtui.worker.explainer.listing import Listing
from sdtui.worker.explainer.stepper import Stepper


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


# fmt: off


@decorated
def winding(count: int) -> list[int]:
    """A function with
    lines of every kind.
    """
    # --- the beginning ---
    found = []
    table = {
        "a": 1,
        "b": [
            number for number in range(count)
        ],
    }
    for number in range(count):
        if number % 2:
            found.append(
                number
                + table["a"]
            )
        else:
            continue
    # --- the end: it gives back ---
    try:
        doubled = [2 * number for number in found]; tripled = [helper(number) for number in found]  # noqa: E702
    except ValueError:
        raise
    finally:
        table.clear()
    return doubled + tripled


def helper(number: int) -> int:
    number += 2 * number
    return number


# fmt: on


@pytest.fixture
def listing() -> Listing:
    return Listing.of(winding)


def text(listing: Listing, line: int) -> str:
    return listing.source.splitlines()[line - listing.first_line].strip()


def run(
    listing: Listing, argument: int, stop: Callable[[int | None], bool] = lambda _: False
) -> tuple[list[int | None], list[Any]]:
    """The lines at which the function arrives, and what it returns."""
    arrived: list[int | None] = []
    returned: list[Any] = []

    def arrive(_variables: dict[str, Any], line: int | None, value: Any) -> bool:
        arrived.append(line)
        if line is None:
            returned.append(value)
        return stop(line)

    stepper = Stepper(lambda: winding(argument), listing.code, listing.statement_at, arrive)
    stepper.start()
    while not stepper.is_over:
        stepper.go_on()
    assert stepper.error is None
    return arrived, returned


def test_a_statement_of_many_lines_is_one(listing: Listing) -> None:
    shown = [text(listing, line) for line in listing.lines]
    assert shown[:6] == [
        "found = []", "table = {", "for number in range(count):", "if number % 2:", "found.append(", "continue",
    ]  # fmt: skip
    assert shown[6:] == [
        "try:",
        "doubled = [2 * number for number in found]; tripled = [helper(number) for number in found]  # noqa: E702",
        "except ValueError:",
        "raise",
        "table.clear()",
        "return doubled + tripled",
    ]


def test_stages_are_the_titled_comments(listing: Listing) -> None:
    assert [stage.title for stage in listing.stages] == ["the beginning", "the end: it gives back"]
    stages = {text(listing, line): listing.stage_of(line) for line in listing.lines}
    assert stages["found = []"] == 0 and stages["continue"] == 0 and stages["try:"] == 1
    assert Listing.of(helper).stages == () and Listing.of(helper).stage_of(Listing.of(helper).lines[0]) == -1


def test_the_loop_is_from_its_head_to_its_last_line(listing: Listing) -> None:
    assert text(listing, listing.loop.start) == "for number in range(count):" and text(listing, listing.loop[-1]) == "continue"
    assert not Listing.of(helper).loop


@pytest.mark.parametrize("stops", [lambda _: True, lambda _: False], ids=["at each line", "never"])
def test_each_statement_that_runs_is_arrived_at_once(listing: Listing, stops: Callable[[int | None], bool]) -> None:
    arrived, returned = run(listing, 3, stops)
    assert returned == [winding(3)] == [[4, 6]]
    assert [text(listing, line) if line else "" for line in arrived] == [
        "found = []",
        "table = {",
        "for number in range(count):",
        "if number % 2:",
        "continue",
        "for number in range(count):",
        "if number % 2:",
        "found.append(",
        "for number in range(count):",
        "if number % 2:",
        "continue",
        "for number in range(count):",
        "try:",
        "doubled = [2 * number for number in found]; tripled = [helper(number) for number in found]  # noqa: E702",
        "table.clear()",
        "return doubled + tripled",
        "",
    ]


def test_an_error_is_kept_with_its_line(listing: Listing) -> None:
    stepper = Stepper(lambda: winding("three"), listing.code, listing.statement_at, lambda *_: True)  # type: ignore[arg-type]  # on purpose
    stepper.start()
    while not stepper.is_over:
        stepper.go_on()
    assert isinstance(stepper.error, TypeError) and stepper.line is not None
    assert text(listing, stepper.line) == "table = {"


def test_a_variable_can_be_given_another_value(listing: Listing) -> None:
    returned: list[Any] = []

    def arrive(_variables: dict[str, Any], line: int | None, value: Any) -> bool:
        returned.extend([] if line else [value])
        return line is not None and text(listing, line).startswith("try:")

    stepper = Stepper(lambda: winding(3), listing.code, listing.statement_at, arrive)
    stepper.start()
    stepper.go_on({"found": [5]})
    assert returned == [[10, 15]] and stepper.is_over


def test_a_dropped_call_ends_where_it_stands(listing: Listing) -> None:
    stepper = Stepper(lambda: winding(3), listing.code, listing.statement_at, lambda *_: True)
    stepper.start()
    stepper.drop()
    assert stepper.is_over and isinstance(stepper.error, Cancelled)


@pytest.mark.parametrize("function", [text_to_image, image_to_image])
def test_the_sampling_functions_are_read_from_their_files(function: Callable[..., Any]) -> None:
    listing = Listing.of(function)
    assert listing.file == f"sdtui/scratch/{listing.name}.py"
    assert listing.source.startswith("@torch.no_grad()\ndef ") and listing.source.endswith("return Image.fromarray(array)\n")
    assert len(listing.stages) == 4 and listing.stages[2].title.startswith("denoise")
    assert all(listing.notes().values())
    runs = {line for _, _, line in listing.code.co_lines() if line}
    assert set(listing.lines) == runs - set(range(listing.first_line, listing.lines[0])), "all but the head can be arrived at"
