"""A loss in one line, for people: every term that weighs something, and where it is taken."""

from kdcompress.settings import LossSettings
from kdcompress.training.recipes.distillation import DISTRUST_AFTER

CLIMBED = {"ce": "CE", "kl": "KL(teacher at x, .)", "adaptive": "KL(teacher, .)"}
SHAPES = {"l2-squared": "squared ", "l2-log": "log "}


def in_words(loss: LossSettings, iga_weight: float, noise_sigma: float) -> str:
    """The effective weights, x' for inputs that an inner attack finds.

    >>> print(in_words(LossSettings(recipe="rslad"), 0.0, 0.0))
    rslad: 0.833 KL(teacher at x, student at x') + 0.167 KL(teacher, student at x); x' by PGD-10 on KL(teacher at x, .)
    >>> print(in_words(LossSettings(), 4.8, 0.0))
    kdiga-noise: 1 KL(teacher, student at x) + 4.8 gradient distance at x (ramp 0.3); x with uniform noise
    """
    attacked = loss.inner_attack != "none"
    place = {"x": "x", "z": "x'" if attacked else "x"}
    both = "teacher" if loss.soft_labels_at == "z" or not attacked else "teacher at x"
    T = "" if loss.temperature == 1 else f", T = {loss.temperature:g}, times T^2"
    start = f"from {loss.iga_start:g} on, " if loss.iga_start > 0 else ""
    terms = [
        (loss.ce_weight, f"CE(student at {place[loss.labels_at]})"),
        (loss.kl_weight, f"KL({both}, student at {place['z']}{T})"),
        (loss.clean_weight, f"KL(teacher, student at x{T})"),
        (
            loss.self_weight,
            f"KL(student at x, student at x') of what it distrusts (from {DISTRUST_AFTER:g} on)",
        ),
        (loss.igdm_weight, "indirect gradient matching (ramp 1)"),
        (
            iga_weight,
            f"{SHAPES.get(loss.iga_norm, '')}gradient distance at {place['z']} ({start}ramp {loss.iga_ramp:g})",
        ),
    ]
    said = f"{loss.recipe}: " + " + ".join(f"{weight:.3g} {term}" for weight, term in terms if weight > 0)
    if attacked:
        said += f"; x' by PGD-{loss.inner_steps} on {CLIMBED[loss.inner_attack]}"
    elif noise_sigma > 0:
        said += f"; x with N(0, {noise_sigma:g}^2)"
    elif loss.input_noise == "uniform":
        said += "; x with uniform noise"
    return said if loss.iga_every == 1 or iga_weight == 0 else f"{said}; gradients in every {loss.iga_every} steps"
