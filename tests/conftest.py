"""Shared by all tests: one thread, so that two processes on two cores do not wait for each other."""

import torch

torch.set_num_threads(1)
