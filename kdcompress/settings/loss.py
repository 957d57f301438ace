"""What a student minimises: recipes, and the weights and places of their terms."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Fraction, NonNegative, Positive, Settings

RECIPES: dict[str, dict[str, Any]] = {
    "kd": {"input_noise": "none", "iga_weight": 0.0},
    "kdiga": {"input_noise": "none"},
    "kdiga-noise": {},
    "kdiga-adv": {"inner_attack": "ce", "input_noise": "none"},
    "ard": {
        **{"inner_attack": "ce", "input_noise": "none", "iga_weight": 0.0, "temperature": 30.0},
        **{"labels_at": "x", "soft_labels_at": "x"},
    },
    "rslad": {
        **{"inner_attack": "kl", "input_noise": "none", "iga_weight": 0.0, "kl_weight": 5 / 6, "clean_weight": 1 / 6},
        **{"labels_at": "x", "soft_labels_at": "x"},
    },
    "iad": {"inner_attack": "ce", "input_noise": "none", "iga_weight": 0.0, "self_weight": 1.0, "labels_at": "x"},
    "adaad": {"inner_attack": "adaptive", "input_noise": "none", "iga_weight": 0.0, "labels_at": "x"},
    "igdm": {
        "inner_attack": "adaptive",
        "input_noise": "none",
        "iga_weight": 0.0,
        "igdm_weight": 1.0,
        "labels_at": "x",
    },
}
"""What a recipe asks for where nothing else is: its paper's weights for CIFAR-10. Equations and sources:
`kdcompress.training.recipes.distillation`."""


class LossSettings(Settings):
    """Which terms, their weights, and where they are taken: x, or z = x + d from an inner attack.

    What is not given is the recipe's. Measured choices: see `kdcompress.training.recipes.iga_weight`.

    Attributes:
        clean_weight: of T^2 KL(teacher || student) at x, beside that at z.
        self_weight, trust_power: IAD's: of the student's own answer at x, and the power of the teacher's confidence.
        igdm_weight: rises over the whole run, as in its source.
        iga_weight: `auto/N` is an N-th of `auto`; see `kdcompress.training.recipes.iga_weight`.
        iga_start: share of the run that goes by without the gradient term; its ramp begins there.
        iga_norm: eq. 14's `l2`; `l1` is the dual norm of Linf; `l2-log` is t log(1 + d / t) of the distance d and the
            teacher's norm t, by which a student whose gradients begin far too large is not flattened so soon.
        iga_every: the gradient term in every so many steps, so many times its weight.
        labels_at, soft_labels_at: where CE is taken, and where the teacher is asked.
    """

    recipe: Literal["kd", "kdiga", "kdiga-noise", "kdiga-adv", "ard", "rslad", "iad", "adaad", "igdm"] = "kdiga-noise"
    ce_weight: NonNegative = 0.0
    kl_weight: NonNegative = 1.0
    clean_weight: NonNegative = 0.0
    self_weight: NonNegative = 0.0
    igdm_weight: NonNegative = 0.0
    iga_weight: NonNegative | Annotated[str, Field(pattern=r"^auto(/[1-9]\d*(\.\d+)?)?$")] = Field(
        default="auto", description="a number, auto, or a part of it such as auto/4"
    )
    iga_start: Fraction = 0.0
    iga_ramp: Fraction = 0.3
    iga_every: Annotated[int, Field(ge=1)] = 1
    align: Literal["ce", "jacobian"] = "ce"
    iga_norm: Literal["l2", "l1", "l2-squared", "l2-log"] = "l2"
    iga_micro_batch: Annotated[int, Field(ge=2)] | None = None
    iga_mode: Literal["auto", "exact", "compiled", "finite-difference"] = "auto"
    temperature: Positive = 1.0
    trust_power: NonNegative = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    input_noise: Literal["uniform", "none"] = "uniform"
    inner_attack: Literal["none", "ce", "kl", "adaptive"] = "none"
    inner_steps: Annotated[int, Field(ge=1)] = 10
    labels_at: Literal["x", "z"] = "z"
    soft_labels_at: Literal["x", "z"] = "z"

    @property
    def aligned_share(self) -> float:
        """Of the steps, those that take the gradient term, where it weighs anything."""
        return (1 - self.iga_start) / self.iga_every

    @model_validator(mode="before")
    @classmethod
    def _the_recipe_fills_the_gaps(cls, given: dict[str, Any]) -> dict[str, Any]:
        recipe = RECIPES.get(given.get("recipe", "kdiga-noise"), {})
        filled = recipe | {name: value for name, value in given.items() if value is not None}
        if filled.get("inner_attack", "none") != "none":
            filled.setdefault("input_noise", "none")
        return filled

    @model_validator(mode="after")
    def _something_to_minimise(self) -> Self:
        weights = (
            *(self.ce_weight, self.kl_weight, self.clean_weight, self.self_weight, self.igdm_weight),
            self.iga_weight,
        )
        if not any(weights):
            raise UsageError("one of --ce-weight, --kl-weight and --iga-weight must be over 0, got 0 for all")
        steady = (self.ce_weight, self.kl_weight, self.clean_weight, self.igdm_weight)
        if not any(steady) and (self.iga_weight == 0 or self.iga_every > 1 or self.iga_start > 0):
            raise UsageError(
                "--self-weight and --iga-start, which begin late, and --iga-every, which skips steps, leave some steps "
                "nothing to learn; give a --kl-weight or --ce-weight beside them"
            )
        if self.iga_start + self.iga_ramp > 1 or self.iga_start == 1:
            raise UsageError(
                f"--iga-start {self.iga_start:g} must be below 1, and at most 1 together with --iga-ramp "
                f"{self.iga_ramp:g}: the weight would never be reached"
            )
        if self.iga_weight == 0:
            for name in ("iga_start", "iga_ramp", "iga_every", "align", "iga_norm"):
                if getattr(self, name) != LossSettings.model_fields[name].default:
                    option = "--" + name.replace("_", "-")
                    raise UsageError(f"{option} is of the gradient term, which weighs 0 here; give an --iga-weight")
        if self.label_smoothing > 0 and self.ce_weight == 0:
            raise UsageError("--label-smoothing is of the cross-entropy, which weighs 0 here; give a --ce-weight")
        if self.inner_attack == "none":
            for option, weight in (("--self-weight", self.self_weight), ("--igdm-weight", self.igdm_weight)):
                if weight > 0:
                    raise UsageError(f"{option} is about what an inner attack finds; add --inner-attack")
            if (
                self.inner_steps != LossSettings.model_fields["inner_steps"].default
            ):  # a record of settings has them all
                raise UsageError("--inner-steps is of an inner attack; add --inner-attack, or a recipe that has one")
        elif self.input_noise != "none":
            raise UsageError("--input-noise is for losses at x; an inner attack takes its place: leave one of them out")
        return self
