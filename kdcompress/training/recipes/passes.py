"""What a step costs, counted in passes: what recipes are compared by before anything is run."""

from dataclasses import dataclass

from kdcompress.settings import LossSettings, TrainSettings


@dataclass(frozen=True)
class Passes:
    """Of one image in one step, each as long as one forward: forward, backward to the input, backward to the weights.

    The count is for layers bilinear in weights and activations; attention's products cost more.
    """

    student: float
    teacher: float

    def in_forwards(self, r: float) -> float:
        """Forwards of the student, one of the teacher being r of them.

        >>> passes(LossSettings(recipe="kd"), 0.0).in_forwards(2.0)
        5.0
        """
        return self.student + r * self.teacher


def passes(loss: LossSettings, iga_weight: float, *, differences: bool = False) -> Passes:
    """Of a step late in the run; of the gradient term, which some steps leave out, the mean of all.

    KD takes r + 3, KDIGA 2r + 6, PGD-10 distillation r + 23.

    Args:
        differences: whether the gradient term is computed by finite differences: KDIGA takes 2r + 10.

    >>> passes(LossSettings(), 1.0), passes(LossSettings(recipe="ard"), 0.0)
    (Passes(student=6.0, teacher=2.0), Passes(student=23.0, teacher=1.0))
    >>> passes(LossSettings(), 1.0, differences=True)
    Passes(student=10.0, teacher=2.0)
    """
    attacked = loss.inner_attack != "none"
    student = teacher = 0.0
    asked_at_x = False
    if attacked:
        student += 2 * loss.inner_steps  # forward, backward to the input
        teacher += 2 * loss.inner_steps if loss.inner_attack == "adaptive" else 0
        labelled_at_x = loss.soft_labels_at == "x" and loss.kl_weight > 0
        asked_at_x = loss.inner_attack == "kl" or labelled_at_x or loss.clean_weight > 0
    share = loss.aligned_share if iga_weight > 0 else 0.0
    # At z: back to the weights. Then through the input gradient, and back to the weights of all of it; or to the input,
    # and at two more points back to the weights.
    student += 3 + (7 if differences else 3) * share
    asked_at_z = loss.igdm_weight > 0 or (loss.kl_weight > 0 and (not attacked or loss.soft_labels_at == "z"))
    teacher += 1 + share if asked_at_z else 2 * share
    teacher += asked_at_x
    seen_at_x = loss.clean_weight > 0 or loss.self_weight > 0 or (loss.ce_weight > 0 and loss.labels_at == "x")
    student += 3 * (attacked and seen_at_x) + 3 * (loss.igdm_weight > 0)
    teacher += loss.igdm_weight > 0
    return Passes(student, teacher)


def passes_without_teacher(settings: TrainSettings) -> Passes:
    """Of a step of `kdcompress train`: 2 a step of the attack, 3 where the network learns; TRADES learns at x as well.

    >>> from kdcompress.settings import DataSettings, ThreatSettings
    >>> any_ = {"model": "m", "data": DataSettings(data="d"), "threat": ThreatSettings(eps=0.1)}
    >>> [passes_without_teacher(TrainSettings(recipe=name, **any_)).student for name in ("at", "trades", "fast")]
    [17.0, 27.0, 5.0]
    """
    return Passes(2 * settings.steps + 3 + 4.0 * (settings.recipe == "trades"), 0.0)
