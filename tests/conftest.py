"""Shared by all tests: one thread, so that two processes on two cores do not wait for each other, and no network."""

import sys
from typing import Any

import torch

torch.set_num_threads(1)


def _no_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Nothing here asks for a download, so nothing may be fetched."""
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise AssertionError(f"a test asked the network for {arguments[0]}")


sys.addaudithook(_no_network)
