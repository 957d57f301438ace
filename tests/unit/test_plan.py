"""What a run will take: figures that follow from each other, and advice where they ask for it."""

from typing import Any

import pytest
from rich.console import Console

from kdcompress.errors import UsageError
from kdcompress.plan import Plan, plan
from kdcompress.render.plan import planned
from kdcompress.settings import LossSettings, PlanSettings, RunSettings

SMALL = {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32]}


def made(**asked: Any) -> Plan:
    usual = {
        "teacher_arch": "resnet18",
        "teacher_args": SMALL,
        "student": "resnet18",
        "student_args": SMALL,
        "image_size": 32,
        "classes": 10,
        "train_images": 50_000,
        "run": RunSettings(epochs=10, batch_size=64),
        "gpus": (1, 4),
    }
    return plan(PlanSettings(**usual | asked))


def test_the_figures_follow_from_each_other() -> None:
    found = made(tflops=2.0, link=0.5)
    one, four = found.rows
    assert found.steps == 10 * (50_000 // 64) and found.r == pytest.approx(1.0)
    assert (one.images, four.images) == (64, 16)
    assert one.compute == pytest.approx(64 * found.flops / 2e12) and four.compute == pytest.approx(one.compute / 4)
    assert one.exchange == 0 and four.exchange == pytest.approx(2 * 3 / 4 * 4 * found.student_params / 0.5e9)
    assert four.hours == pytest.approx(found.steps * (four.compute + four.exchange) / 3600)
    assert four.gpu_hours == pytest.approx(4 * four.hours)
    assert one.memory > four.memory > found.resident and one.fits and one.micro_batch is None


def test_memory_that_is_too_little_asks_for_parts_and_then_says_no() -> None:
    whole = made(gpus=(1,)).rows[0]
    tight = made(gpus=(1,), gpu_memory=(whole.memory - 5 * 2**20) / 2**30).rows[0]
    assert tight.fits and tight.micro_batch in (32, 16, 8) and tight.memory < whole.memory
    none = made(gpus=(1,), gpu_memory=0.5)
    assert not none.rows[0].fits and none.rows[0].micro_batch is None
    assert "not even two images fit" in none.advice[0]


@pytest.mark.parametrize("less", [50])  # MiB
def test_parts_are_found_where_the_optimizer_takes_more_than_an_image(less: int) -> None:
    wide = {"teacher_args": {}, "student_args": {}, "gpus": (1,)}
    whole = made(**wide)
    assert 8 * 2**20 < whole.an_image < 16 * 2**20
    tight = made(**wide, gpu_memory=whole.rows[0].memory / 2**30 - less / 1024).rows[0]
    assert tight.fits and tight.micro_batch == 32


def test_the_parts_are_those_that_a_batch_is_divided_into() -> None:
    whole = made(gpus=(1,), run=RunSettings(epochs=1, batch_size=97))
    tight = made(
        gpus=(1,), run=RunSettings(epochs=1, batch_size=97), gpu_memory=whole.rows[0].memory / 2**30 - 0.005
    ).rows[0]
    assert tight.micro_batch == 49  # of 97 in two parts


def test_advice_is_given_where_the_figures_ask_for_it() -> None:
    assert made(gpus=(1,), tflops=0.1).advice == ()
    said = made(gpus=(8,), link=0.001).advice
    assert any("8 images at a time: add --sync-batchnorm, or take more" in line for line in said)
    assert any("averaging gradients" in line for line in said)
    layered = made(gpus=(8,), student="convnext_atto", student_args={"depths": [1, 1, 1, 1], "dims": [16, 16, 16, 16]})
    assert not any("sync-batchnorm" in line for line in layered.advice)


def test_cores_are_for_images_that_do_not_fit_into_memory() -> None:
    assert made(gpus=(1,)).rows[0].cores is None
    row = made(gpus=(1,), train_images=2_000_000).rows[0]
    assert row.cores == pytest.approx(64 / row.step * 2.05e-3)


def test_a_teacher_that_costs_far_more_than_the_student_is_named() -> None:
    said = made(gpus=(1,), teacher_args={}).advice
    assert "--cache-teacher" in said[0] and "--recipe rslad" in said[0]
    assert made(gpus=(1,), teacher_args={}, loss=LossSettings(recipe="rslad")).advice == ()
    (rarely,) = made(gpus=(1,), teacher_args={}, loss=LossSettings(iga_every=8)).advice
    assert "--cache-teacher" in rarely and "rslad" not in rarely  # which asks it every time


def test_recipes_cost_what_they_cost() -> None:
    kd, rslad = (made(loss=LossSettings(recipe=name), gpus=(1,)).flops for name in ("kd", "rslad"))
    # 7%: the first layer's input asks for a gradient under attack alone, and that layer is large in a network so small.
    assert rslad / kd == pytest.approx(27 / 4, rel=0.1)


def test_a_gradient_term_that_some_steps_leave_out_costs_its_share_of_them() -> None:
    kd, every, some = (
        made(loss=LossSettings(**more), gpus=(1,))
        for more in ({"iga_weight": 0.0}, {}, {"iga_every": 2, "iga_start": 0.4, "iga_ramp": 0.0})
    )
    assert some.flops == pytest.approx(kd.flops + 0.3 * (every.flops - kd.flops))
    assert some.rows[0].hours == pytest.approx(kd.rows[0].hours + 0.3 * (every.rows[0].hours - kd.rows[0].hours))
    assert some.rows[0].memory == every.rows[0].memory > kd.rows[0].memory


def test_the_table_says_what_it_rests_on() -> None:
    def printed(plan: Plan) -> str:
        console = Console(width=130, record=True)
        console.print(planned(plan))
        return console.export_text()

    text = printed(made())
    assert "on average" not in text and "on average" in printed(made(loss=LossSettings(iga_every=2)))
    assert "at 100 TFLOP/s a GPU (--tflops; kdcompress bench measures it)" in " ".join(text.split())
    assert "7,810 steps" in text and text.count(" GiB") + text.count(" MiB") >= 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"train_images": 50}, "--train-images must be at least the batch's 64, got 50"),
        ({"teacher_arch": "cifar_resnet", "teacher_args": {}}, "--classes must be the teacher's 10, got 7"),
        ({"student_stride": 32, "gpus": (64,), "student_args": {}}, "a step of these networks cannot be counted: "),
    ],
)
def test_what_cannot_be_planned_ends_in_one_line(asked: dict[str, Any], said: str) -> None:
    if "teacher_arch" in asked:
        asked = asked | {"classes": 7}
    with pytest.raises(UsageError, match=said):
        made(**asked)


def test_gpus_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="must be a multiple of every number of GPUs, got 64 for 3"):
        made(gpus=(1, 3))
