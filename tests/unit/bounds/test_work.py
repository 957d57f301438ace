import torch

from kdcompress.bounds.graph import Network
from kdcompress.bounds.steps import Convolution, Dense, Relu
from kdcompress.bounds.work import work


def test_work_counts_every_entry_before_a_relu_times_what_lies_behind_it() -> None:
    steps = (
        Convolution((0,), (2, 3, 3), (1, 4, 4), torch.zeros(2, 1, 2, 2), None, (1, 1), (0, 0), (1, 1), 1),
        Relu((1,), (2, 3, 3)),
        Dense((2,), (2, 3, 5), torch.zeros(5, 3), None),
        Relu((3,), (2, 3, 5)),
        Dense((4,), (2, 3, 1), torch.zeros(1, 5), None),
    )
    convolution, first, dense = 18 * 4, 18, 30 * 3
    assert work(Network((1, 4, 4), steps)) == 18 * convolution + 30 * (convolution + first + dense)
