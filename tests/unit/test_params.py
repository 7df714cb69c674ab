"""Each parameter is declared once; what it may be is checked from that."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtui.params import (
    BY_FIELD,
    FIELDS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_SOURCE_CHARACTERS,
    GenerationParams,
    ParamField,
    changed,
    check_params,
    check_size,
    check_strength,
    check_value,
    parse_value,
    steps_that_run,
)
from sdtui.schedulers import MODEL_DEFAULT, SCHEDULERS, SchedulerSpec, a1111_schedule, find_scheduler, nearest_scheduler

GOOD = GenerationParams(prompt="a red cat")
NUMBERS = [field for field in FIELDS if field.kind in ("int", "float")]


def problems(**given: object) -> dict[str, str]:
    return {problem.field: problem.message for problem in check_params(msgspec.structs.replace(GOOD, **given))}


def test_a_prompt_is_enough() -> None:
    assert check_params(GOOD) == []


def test_every_default_but_the_empty_prompt_is_right() -> None:
    assert [problem.field for problem in check_params(GenerationParams())] == ["prompt"]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_parameter_explains_itself(field: ParamField) -> None:
    spec = field.spec
    assert spec.label
    assert spec.help.endswith(".")
    assert spec.flag or field.name == "prompt"


def test_flags_are_unique() -> None:
    flags = [field.spec.flag for field in FIELDS]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_the_ends_of_a_range_are_in_and_what_lies_beyond_is_out(field: ParamField) -> None:
    name, spec = field.name, field.spec
    for value in (spec.minimum, spec.maximum):
        assert check_value(name, value) is None
    for value in (spec.minimum - 1, spec.maximum + 1):
        message = check_value(name, value)
        assert message is not None
        assert spec.label in message
        assert "from" in message


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("prompt", "", "Prompt is empty"),
        ("prompt", " \n\t", "Prompt is empty"),
        ("prompt", "x" * 100_000, "100,000 characters; at most 10,000"),
        ("negative_prompt", "x" * (MAX_PROMPT_CHARACTERS + 1), "10,001 characters"),
        ("prompt", "\udc80", "not UTF-8"),
        ("width", 0, "from 8 to 4096 px; it is 0"),
        ("width", 7, "from 8 to 4096 px; it is 7"),
        ("width", 100_000, "from 8 to 4096 px; it is 100000"),
        ("num_inference_steps", 0, "from 1 to 1000; it is 0"),
        ("num_inference_steps", 10_001, "from 1 to 1000; it is 10001"),
        ("guidance_scale", math.nan, "it is nan"),
        ("guidance_scale", math.inf, "it is inf"),
        ("seed", -1, "it is -1"),
        ("seed", MAX_SEED + 1, str(MAX_SEED)),
        ("seed", 10**400, "it is 1000"),
        ("scheduler", "eular", "the nearest one is 'euler'"),
        ("sigmas", "karas", "did you mean 'karras'"),
        ("model", " ", "Model is empty"),
        ("device", "gpu", "auto, cpu, cuda, cuda:N"),
        ("device", "cuda:", "auto, cpu, cuda, cuda:N"),
        ("num_inference_steps", None, "may not be empty"),
        ("init_image", "", "path of a picture or a URL"),
        ("init_image", "/" + "x" * MAX_SOURCE_CHARACTERS, "at most 4,096 characters"),
        ("init_image", "/cat\0.png", "path of a picture or a URL"),
        ("init_image", "/cat\udcff.png", "not UTF-8"),
        ("strength", -1.0, "from 0 to 1; it is -1.0"),
        ("strength", 1.5, "from 0 to 1; it is 1.5"),
        ("strength", math.nan, "it is nan"),
        ("resize", "stretch", "one of fit, exact, fill, crop"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, value: object, part: str) -> None:
    assert part in problems(**{name: value})[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "a [/] cat \x1b[31m"),
        ("prompt", "x" * MAX_PROMPT_CHARACTERS),
        ("seed", None),
        ("seed", MAX_SEED),
        ("width", None),
        ("scheduler", "DPM++ 2M"),
        ("device", "cuda:3"),
        ("batch_size", 64),
    ],
)
def test_a_right_value_passes(name: str, value: object) -> None:
    assert problems(**{name: value}) == {}


def test_several_problems_come_in_the_order_of_the_form() -> None:
    assert list(problems(width=0, prompt="", num_inference_steps=0)) == ["prompt", "num_inference_steps", "width"]


@given(st.sampled_from(NUMBERS), st.integers() | st.floats())
def test_a_check_never_fails_itself(field: ParamField, value: float) -> None:
    name = field.name
    message = check_value(name, value)
    assert message is None or len(message) < 200


@given(st.sampled_from(FIELDS), st.text())
def test_any_text_is_parsed_or_refused_with_a_sentence(field: ParamField, text: str) -> None:
    name = field.name
    try:
        value = parse_value(name, text)
    except ValueError as error:
        assert BY_FIELD[name].spec.label in str(error)
        assert len(str(error)) < 300
    else:
        message = check_value(name, value)
        assert message is None or message.endswith((".", "?", ")"))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_what_the_form_shows_is_parsed_back(field: ParamField) -> None:
    name, default = field.name, field.default
    assert parse_value(name, "" if default is None else str(default)) == default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", " random ", None),
        ("seed", "42", 42),
        ("guidance_scale", "7.5", 7.5),
        ("safety_checker", "yes", True),
        ("safety_checker", "Off", False),
        ("prompt", " a cat ", " a cat "),
        ("scheduler", " euler ", "euler"),
        ("init_image", " ", None),
        ("init_image", "auto", "auto"),
        ("revision", "random", "random"),
        ("width", "auto", None),
    ],
)
def test_values_are_read_from_text(name: str, text: str, value: object) -> None:
    assert parse_value(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("num_inference_steps", "twenty", "Steps takes a whole number from 1 to 1000, not 'twenty'"),
        ("num_inference_steps", "2.5", "a whole number"),
        ("num_inference_steps", "", "not ''"),
        ("guidance_scale", "much", "Guidance takes a number from 0 to 50"),
        ("safety_checker", "maybe", "yes or no"),
        ("seed", "9" * 5000, "a whole number"),
    ],
)
def test_text_that_is_no_value_is_refused(name: str, text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"takes|yes or no") as caught:
        parse_value(name, text)
    assert part in str(caught.value)


@given(st.integers(1, 5000), st.sampled_from([8, 16, 32, 64]))
def test_a_size_is_a_multiple_or_gets_two_that_are(value: int, multiple: int) -> None:
    message = check_size("width", value, multiple)
    if value % multiple == 0:
        assert message is None
        return
    assert message is not None
    below, above = (int(number) for number in message.rstrip(".").split("Near it: ")[1].split(" or "))
    assert below % multiple == above % multiple == 0
    assert 0 < below < above


@given(st.integers(1, 1000), st.floats(0, 1))
def test_a_strength_is_right_where_a_step_is_left_and_else_the_least_that_is_named_would_be(steps: int, strength: float) -> None:
    message = check_strength(steps, strength)
    assert (message is None) == (steps_that_run(steps, strength) > 0)
    if message is not None:
        least = float(message.split("at least ")[1].split(" is needed")[0])
        assert steps_that_run(steps, least) >= 1 > steps_that_run(steps, least - 0.01)


@pytest.mark.parametrize(("steps", "strength", "run"), [(40, 0.75, 30), (20, 0.8, 16), (6, 0.5, 3), (20, 1.0, 20), (20, 0.04, 0)])
def test_the_strength_is_the_share_of_the_steps_that_runs(steps: int, strength: float, run: int) -> None:
    assert steps_that_run(steps, strength) == run


def test_a_strength_that_leaves_no_step_is_wrong_only_with_an_initial_image() -> None:
    assert problems(strength=0.01) == {}
    assert problems(strength=0.01, init_image="/cat.png") == {
        "strength": "Strength 0.01 of 20 steps leaves none to run; at least 0.05 is needed, or more steps."
    }


def test_a_size_left_to_the_model_is_right() -> None:
    assert check_size("height", None, 64) is None


def test_only_what_differs_from_the_defaults_counts_as_changed() -> None:
    assert changed(GenerationParams()) == {}
    assert changed(GenerationParams(prompt="a cat", seed=0)) == {"prompt": "a cat", "seed": 0}


@pytest.mark.parametrize("spec", SCHEDULERS, ids=lambda spec: spec.name)
def test_a_scheduler_is_found_by_each_of_its_spellings(spec: SchedulerSpec) -> None:
    name, label, a1111 = spec.name, spec.label, spec.a1111
    assert {find_scheduler(spelling) for spelling in (name, label, name.upper(), a1111 or name)} == {name}


@pytest.mark.parametrize("name", ["default", "Default"])
def test_the_models_own_scheduler_is_known(name: str) -> None:
    assert find_scheduler(name) == MODEL_DEFAULT


@given(st.text())
def test_there_is_always_a_nearest_scheduler(name: str) -> None:
    assert find_scheduler(nearest_scheduler(name)) is not None


def test_spacings_have_a1111s_names() -> None:
    assert [a1111_schedule(name) for name in ("default", "karras", "exponential", "beta")] == [
        None,
        "Karras",
        "Exponential",
        "Beta",
    ]
