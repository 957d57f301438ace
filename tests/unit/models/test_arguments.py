import json

import pytest

from kdcompress.errors import UsageError
from kdcompress.models.arguments import as_json_value, as_python_value, parse_arguments


def test_python_literals_are_parsed_and_anything_else_is_a_string():
    pairs = ["layers=1,1,1,1", "rate=0.1", "act_layer=silu", "flag=True", "none=None", "size=(8, 8)", "empty="]
    assert parse_arguments(pairs, "--student-arg") == {
        "layers": (1, 1, 1, 1),
        "rate": 0.1,
        "act_layer": "silu",
        "flag": True,
        "none": None,
        "size": (8, 8),
        "empty": "",
    }


def test_a_value_may_hold_equals_signs():
    assert parse_arguments(["note=a=b"], "--student-arg") == {"note": "a=b"}


@pytest.mark.parametrize("pair", ["layers", "=3", "two words=1", ""])
def test_a_pair_without_key_and_equals_is_refused_with_the_option_named(pair):
    with pytest.raises(UsageError, match="--teacher-arg must be key=value"):
        parse_arguments([pair], "--teacher-arg")


def test_a_key_given_twice_is_refused():
    with pytest.raises(UsageError, match="layers was given twice"):
        parse_arguments(["layers=1", "layers=2"], "--student-arg")


@pytest.mark.parametrize("text", ["1e999", "{1, 2}", "b'x'", "3j"])
def test_values_that_json_cannot_hold_are_refused(text):
    with pytest.raises(UsageError, match="--student-arg key must be"):
        parse_arguments([f"key={text}"], "--student-arg")


def test_code_is_a_string_and_never_runs():
    assert parse_arguments(["key=__import__('os').getcwd()"], "--student-arg") == {"key": "__import__('os').getcwd()"}


def test_tuples_survive_a_journey_through_json():
    args = {"layers": (1, (2, 3)), "cfg": {"depths": (1, 2)}, "name": "x"}
    stored = json.loads(json.dumps(as_json_value(args, "args")))
    assert as_python_value(stored) == args
