"""Bounds are rounded to their own side."""

import torch

from kdcompress.evaluation.audit.numbers import finite, finite_up, rounded, rounded_down

VALUES = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_lower_bound_is_never_rounded_above_itself_and_an_upper_bound_never_below() -> None:
    for scale in (1e-9, 1.0, 255.0):
        values = (scale * VALUES).tolist()
        down, up = rounded_down(scale * VALUES), finite_up(scale * VALUES)
        for value, low, high in zip(values, down, up, strict=True):
            assert low <= value <= high  # type: ignore[operator]
            assert high - low <= 1.1e-5 * value  # type: ignore[operator]


def test_what_six_digits_hold_stays_what_it_is() -> None:
    values = torch.tensor([0.0, 0.1, 8 / 16, 123456.0, 0.00123], dtype=torch.float64)
    assert rounded(values) == rounded_down(values) == finite_up(values) == tuple(values.tolist())


def test_what_json_has_no_number_for_is_none() -> None:
    values = torch.tensor([torch.inf, torch.nan, 1.0])
    assert finite(values) == finite_up(values) == (None, None, 1.0)
