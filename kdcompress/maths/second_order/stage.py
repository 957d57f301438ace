"""What an autograd function is not told: which of its gradients are wanted."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class Stage:
    """Which backward is running: the first one, to the inputs alone, or the last one, to the weights.

    An autograd function cannot see which of its gradients are wanted. Told so, it spares the first backward those by
    the weights, and the last one those by the pixels.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.to_inputs = False

    @contextmanager
    def inputs_only(self) -> Iterator[None]:
        """For as long as the gradient to the inputs is taken, and no other."""
        self.to_inputs = True
        try:
            yield
        finally:
            self.to_inputs = False

    def reads_pixels(self, x: Tensor) -> bool:
        """Whether `x` is the pixels or a chain of a few operations on them and on no weight: a stem's input."""
        if x is self.pixels:
            return True
        node = x.grad_fn
        for _ in range(4):  # normalisation is two; a longer search would cost every layer more than it spares one
            before = [] if node is None else [next_ for next_, _ in node.next_functions if next_ is not None]
            if len(before) != 1:
                return False
            node = before[0]
            if hasattr(node, "variable"):
                return node.variable is self.pixels
        return False
