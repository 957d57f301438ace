"""The options that say what is minimised. What is not given is the recipe's."""

from typing import Annotated, Any

import typer

from kdcompress.cli.options import LOSS, choice, default
from kdcompress.settings import LossSettings


def option(help: str) -> Any:
    """One of the loss's options."""
    return typer.Option(help=help, rich_help_panel=LOSS)


Recipe = Annotated[
    str,
    choice(
        LossSettings,
        "recipe",
        LOSS,
        "kd, kdiga, kdiga-noise, kdiga-adv, ard, rslad, iad, adaad or igdm: what the options below are where they are "
        "not given.",
    ),
]
CeWeight = Annotated[float | None, option("Weight of the cross-entropy. Default: 0.")]
KlWeight = Annotated[float | None, option("Weight of T^2 KL(teacher || student). Default: 1; rslad 5/6.")]
CleanWeight = Annotated[float | None, option("Weight of that KL at the clean images as well. Default: 0; rslad 1/6.")]
SelfWeight = Annotated[
    float | None, option("Weight of KL(student at x || student at the attacked x). Default: 0; iad 1.")
]
IgdmWeight = Annotated[
    float | None, option("Weight of indirect gradient matching, rising over the run. Default: 0; igdm 1.")
]
IgaWeight = Annotated[
    str | None,
    option(
        "Weight of the input-gradient distance (eq. 14), on top of any recipe. auto scales it by eps and the image "
        "size, auto/4 is a quarter of that; 0 takes no gradient. Default: auto with kdiga's recipes, else 0."
    ),
]
IgaStart = Annotated[float, option("Share of the run that goes by before that term is taken.")]
IgaRamp = Annotated[float, option("Share of the run over which its weight then rises from 0.")]
IgaEvery = Annotated[int, option("Take that term in every N-th step, N times its weight.")]
Align = Annotated[
    str,
    choice(
        LossSettings,
        "align",
        LOSS,
        "Whose input gradients are aligned: ce as in eq. 14, or jacobian, random combinations of the logits.",
    ),
]
IgaNorm = Annotated[
    str,
    choice(
        LossSettings,
        "iga_norm",
        LOSS,
        "Norm of that distance: l2 is eq. 14's, l1 the dual norm of Linf, as in (26), l2-squared, or l2-log, for deep "
        "students that flatten.",
    ),
]
IgaMode = Annotated[
    str,
    choice(
        LossSettings,
        "iga_mode",
        LOSS,
        "How it is computed: exact, compiled, finite-difference; auto takes the fastest exact way.",
    ),
]
IgaMicroBatch = Annotated[
    int | None,
    option(
        "Of a batch, the most images in memory at once; it goes through in parts. "
        "Default: all, and halves where memory runs out."
    ),
]
Temperature = Annotated[float | None, option("T of the KL terms. Default: 1; ard 30.")]
LabelSmoothing = Annotated[float, option("Share of the cross-entropy's label that all classes divide.")]
InputNoise = Annotated[
    str | None,
    choice(
        LossSettings,
        "input_noise",
        LOSS,
        "Take the loss at x plus uniform noise in the ball, or at x: uniform or none. Default: the recipe's.",
    ),
]
InnerAttack = Annotated[
    str | None,
    choice(
        LossSettings,
        "inner_attack",
        LOSS,
        "Take the loss at inputs found by PGD on the student: ce, kl (from the teacher's answer at x), adaptive (from "
        "its answer there) or none. Default: the recipe's.",
    ),
]
InnerSteps = Annotated[
    int | None,
    option(
        "Steps of the inner attack, of 2.5 eps / N each; 1 is of 1.25 eps from a random start, 2 are of .75 eps. "
        "Default: 10."
    ),
]


class Minimised:
    """What a student learns of its teacher, and from which inputs."""

    recipe: Recipe = default(LossSettings, "recipe")
    ce_weight: CeWeight = None
    kl_weight: KlWeight = None
    clean_weight: CleanWeight = None
    self_weight: SelfWeight = None
    igdm_weight: IgdmWeight = None
    iga_weight: IgaWeight = None
    iga_start: IgaStart = default(LossSettings, "iga_start")
    iga_ramp: IgaRamp = default(LossSettings, "iga_ramp")
    iga_every: IgaEvery = default(LossSettings, "iga_every")
    align: Align = default(LossSettings, "align")
    iga_norm: IgaNorm = default(LossSettings, "iga_norm")
    iga_mode: IgaMode = default(LossSettings, "iga_mode")
    temperature: Temperature = None
    label_smoothing: LabelSmoothing = default(LossSettings, "label_smoothing")
    input_noise: InputNoise = None
    inner_attack: InnerAttack = None
    inner_steps: InnerSteps = None
