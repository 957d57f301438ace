import math

import pytest

from kdcompress.errors import UsageError
from kdcompress.threat import NORMS, ThreatModel, parse_eps, render_eps


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 1.0), ("Linf", 1e-9), ("L2", 100.0), ("L2", 0.5)])
def test_radii_up_to_the_largest_are_accepted(norm: str, eps: float) -> None:
    assert ThreatModel(norm, eps).eps == eps  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [0.0, -0.1, math.nan, math.inf, 1.0001])
def test_linf_radii_outside_zero_to_one_are_refused(eps: float) -> None:
    with pytest.raises(UsageError, match=r"--eps must be in \(0, 1\], got .*: inputs are in \[0, 1\]"):
        ThreatModel("Linf", eps)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, 101.0])
def test_l2_radii_outside_zero_to_a_hundred_are_refused(eps: float) -> None:
    with pytest.raises(UsageError, match=r"--eps must be in \(0, 100\]"):
        ThreatModel("L2", eps)


def test_a_radius_in_grey_levels_is_answered_with_the_fraction_that_was_meant() -> None:
    with pytest.raises(UsageError) as raised:
        ThreatModel("Linf", 8)
    assert str(raised.value) == "--eps must be in (0, 1], got 8: inputs are in [0, 1]; did you mean 8/255?"


@pytest.mark.parametrize("eps", [-8.0, 0.0, 256.0])
def test_a_radius_that_is_no_grey_level_gets_no_such_hint(eps: float) -> None:
    with pytest.raises(UsageError) as raised:
        ThreatModel("Linf", eps)
    assert "did you mean" not in str(raised.value)


def test_an_unknown_norm_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--norm must be one of Linf, L2, L1, got L0"):
        ThreatModel("L0", 0.1)  # type: ignore[arg-type]
    assert NORMS == ("Linf", "L2", "L1")


@pytest.mark.parametrize(
    ("text", "eps"), [("8/255", 8 / 255), ("0.15", 0.15), ("1", 1.0), ("5e-3", 5e-3), (" 2 / 255 ", 2 / 255)]
)
def test_numbers_and_fractions_are_read(text: str, eps: float) -> None:
    assert parse_eps(text) == eps


@pytest.mark.parametrize("text", ["", "eight", "8/", "/255", "8/0", "1/2/3", "8:255"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_eps(text)
    assert str(raised.value) == f"--eps must be a number or a fraction such as 8/255, got {text or 'nothing'}"


@pytest.mark.parametrize("text", ["8/255", "2/255", "1/255", "0.15", "0.5", "1", "3"])
def test_what_is_rendered_is_what_was_read(text: str) -> None:
    assert render_eps(parse_eps(text)) == text


def test_a_threat_model_reads_as_its_norm_and_radius() -> None:
    assert str(ThreatModel("Linf", 8 / 255)) == "Linf 8/255"
    assert str(ThreatModel("L2", 0.5)) == "L2 0.5"
