"""Which software made a number."""

import platform
from importlib.metadata import version

PACKAGES = ("kdcompress", "torch", "torchvision", "timm", "pyautoattack", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a figure."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
