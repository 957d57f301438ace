"""The Python API: what `from kdcompress import ...` offers, and that it explains itself."""

import inspect as introspection
import subprocess
import sys
from importlib.resources import files

import pytest

import kdcompress

FUNCTIONS = [name for name in kdcompress.__all__ if introspection.isfunction(getattr(kdcompress, name))]


def test_every_name_is_there_and_is_typed() -> None:
    assert sorted(kdcompress._HOME_OF) == sorted(kdcompress.__all__)
    for name in kdcompress.__all__:
        assert getattr(kdcompress, name).__module__.startswith("kdcompress."), name
    assert set(kdcompress.__all__) <= set(dir(kdcompress))
    assert files("kdcompress").joinpath("py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="evalaute"):
        _ = kdcompress.evalaute


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example_which_the_doctests_run(name: str) -> None:
    function = getattr(kdcompress, name)
    example = (function.__doc__ or "").partition(">>> ")[2]
    assert f"{name}(" in example, f"{name} shows no call of itself"


def test_no_name_is_also_a_modules_so_that_importing_that_module_changes_nothing() -> None:
    modules = {path.stem if path.is_file() else path.name for path in files("kdcompress").iterdir()}
    assert not modules & set(kdcompress.__all__)


def test_importing_the_package_costs_nothing() -> None:
    watch = "import sys, kdcompress; print(sorted({'torch', 'pydantic', 'rich'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
