"""Which software made a number."""

import platform
from importlib.metadata import version

PACKAGES = ("kdcompress", "torch", "torchvision", "timm", "pyautoattack", "numpy", "scipy")


def versions(first: str = "python") -> dict[str, str]:
    """Versions of Python and of the packages that can move a figure, one of them before the others."""
    found = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    return {first: found[first]} | found
