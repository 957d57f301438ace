"""The gradient term on a GPU, against the CPU's float64. Nothing here runs without one."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from kdcompress.engine import choose, exact
from kdcompress.engine.finite_difference import finite_difference
from kdcompress.models.students import create_student
from tests.second_derivatives import cosine, kdiga, without_chance

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

VIT = {"depth": 2, "patch_size": 8}
STUDENTS = [("resnet18", {}), ("mobilenetv3_small_050", {}), ("convnext_atto", {}), ("vit_tiny_patch16_224", VIT)]


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def network(name: str, args: dict[str, object]) -> nn.Module:
    torch.manual_seed(0)
    model, _ = create_student(
        name, args, classes="0123456789", input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    return without_chance(model)


@pytest.mark.parametrize(("name", "args"), STUDENTS)
def test_the_weights_gradient_is_that_of_the_cpus_float64(name: str, args: dict[str, object]) -> None:
    student, random = network(name, args), torch.Generator().manual_seed(1)
    x, y = torch.rand(16, 3, 32, 32, generator=random), torch.arange(16) % 10
    g_t = torch.randn(x.shape, generator=random) * 0.002
    reference = kdiga(copy.deepcopy(student).double(), x.double(), y, g_t.double(), ours=False)
    layout = torch.channels_last
    there = student.cuda().to(memory_format=layout)
    found = kdiga(there, x.cuda().to(memory_format=layout), y.cuda(), g_t.cuda(), ours=True)
    assert cosine([slope.cpu() for slope in found], reference) >= 0.9999


@pytest.mark.parametrize(("name", "args"), STUDENTS)
def test_compiled_code_passes_its_check(name: str, args: dict[str, object]) -> None:
    student = network(name, args).cuda().to(memory_format=torch.channels_last)
    x, y = torch.rand(16, 3, 32, 32, device="cuda"), torch.arange(16, device="cuda") % 10
    x = x.contiguous(memory_format=torch.channels_last)
    _, chosen = choose("compiled", student, x, y, torch.randn_like(x) * 0.002, p=2, steps=10)
    assert chosen.mode == "compiled", chosen.line


def test_finite_differences_draw_the_same_dropout_masks_in_every_pass() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.SiLU(), nn.Dropout(0.5), nn.Linear(64, 3)).cuda()
    x, y = torch.rand(8, 3, 4, 4, device="cuda"), torch.arange(8, device="cuda") % 3
    g_t, gradients = torch.randn_like(x) * 0.1, []
    for align in (exact(2), finite_difference()):
        torch.manual_seed(5)
        student.zero_grad()
        align(student, x, y, g_t)[1].mean().backward()
        gradients.append([weight.grad.clone() for weight in student.parameters() if weight.grad is not None])
    assert cosine(*gradients) > 0.999
