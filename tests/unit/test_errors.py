import pytest

from kdcompress import errors
from kdcompress.errors import KdcompressError, did_you_mean

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_exit_codes_are_the_documented_ones() -> None:
    codes = (errors.EXIT_OK, errors.EXIT_GATE_MISSED, errors.EXIT_CANNOT_RUN, errors.EXIT_BUG, errors.EXIT_INTERRUPTED)
    assert codes == (0, 1, 2, 3, 130)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_that_the_user_can_mend_ends_with_exit_code_2(kind: type[Exception]) -> None:
    assert issubclass(kind, KdcompressError)
    assert kind.exit_code == 2


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("vit_tinny", "; did you mean vit_tiny?"),
        ("resnet1", "; did you mean resnet18 or resnet101?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_hint_names_the_nearest_choices_or_nothing(word: str, hint: str) -> None:
    assert did_you_mean(word, ["vit_tiny", "resnet101", "resnet18"]) == hint


def test_the_hint_names_no_more_choices_than_asked() -> None:
    assert did_you_mean("resnet", (f"resnet{i}" for i in range(9)), count=1).count("resnet") == 1
