"""Distillation, whatever the recipe: where the losses are taken, and what is summed there."""

from torch import Generator, Tensor, nn

from kdcompress.attacks.inner import anywhere, beside, climb
from kdcompress.engine import Alignment
from kdcompress.maths.losses import bent_distance, cross_entropy, distillation_kl
from kdcompress.maths.randomness import generator
from kdcompress.settings import LossSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.lessons import kind_of, lesson, noisy
from kdcompress.training.recipes.recipe import Recipe, Terms, Weights
from kdcompress.training.recipes.seen import Seen
from kdcompress.training.recipes.terms import clean, indirect_gradient, introspection, soft_labels

DISTRUST_AFTER = 0.3
"""Share of the run after which a student may distrust its teacher: its own answers mean nothing at first. The source's
60 epochs of 200 (arXiv:2106.04928)."""


def distillation(
    teacher: nn.Module,
    loss: LossSettings,
    threat: ThreatModel,
    *,
    iga_weight: float,
    seed: int,
    align: Alignment,
    classes: int,
    noise_sigma: float = 0.0,
) -> Recipe:
    """Every recipe of `--recipe`: one composition of the same terms, told apart by values.

    z is x (`inner_attack` none), or x + d with d found by climbing one of these over the ball; s, t: softmax(f / T).

    | attack   | climbs            |
    |----------|-------------------|
    | ce       | CE(f_s(z), y)     |
    | kl       | KL(t(x) || s(z))  |
    | adaptive | KL(t(z) || s(z))  |

    | recipe        | attack   | minimised                                                   | source                 |
    |---------------|----------|-------------------------------------------------------------|------------------------|
    | `kd`          | none     | T^2 KL(t(x) || s(x))                                        | eq. 13                 |
    | `kdiga`       | none     | eq. 13 + w ||g_s(x) - g_t(x)||                              | eq. 14                 |
    | `kdiga-noise` | none     | the same at x plus uniform noise in the ball                | beyond the paper       |
    | `kdiga-adv`   | ce       | the same at z                                               | eq. 14                 |
    | `ard`         | ce       | (1 - a) CE(f_s(x), y) + a T^2 KL(t(x) || s(z))              | arXiv:1905.09747       |
    | `rslad`       | kl       | (1 - a) KL(t(x) || s(x)) + a KL(t(x) || s(z))               | arXiv:2108.07969       |
    | `iad`         | ce       | b KL(t(z) || s(z)) + (1 - b) KL(s(x) || s(z)); b = t(z)_y^c | arXiv:2106.04928       |
    | `adaad`       | adaptive | (1 - a) KL(t(x) || s(x)) + a KL(t(z) || s(z))               | Huang et al. (2023)    |
    | `igdm`        | adaptive | adaad + w KL(t(x+d) - t(x-d) || s(x+d) - s(x-d))            | arXiv:2312.03286       |

    Eq. 13 and 14: arXiv:2110.12072. Huang et al.: "Boosting Accuracy and Robustness of Student Models via Adaptive
    Adversarial Distillation", CVPR. a = 1 in `ard` and `adaad`, 5/6 in `rslad`; c = .1; w of `igdm` rises to 1 over the
    run. Departures: every attack takes its gradients in eval mode, starts once and steps by `attacks.inner.climb`; KL
    is summed over classes and a mean over images, where published code divides it by K as well. `iad` is what the
    source's code has for its adversarially trained teacher in IAD-II, without the natural one beside it; the code of
    IAD-I asks for the teacher's labels at x, and does not weigh them.

    With a weight of 0 the gradient term takes no input gradient: the step costs what it costs without.

    Args:
        teacher: eval mode, frozen.
        iga_weight: of the gradient term, taken at z; reached linearly over the share `loss.iga_ramp` of the run that
            follows its first `loss.iga_start`, which goes without.
        seed: of the noise, the starts of inner attacks and the directions of `--align jacobian`, a generator each.
        align: how the gradient term is computed; see `kdcompress.engine`.
        classes: K.
        noise_sigma: of Gaussian noise, for a student that is to be certified by randomized smoothing; 0 leaves the
            noise to `loss.input_noise`.
    """
    kind, T = kind_of(loss, iga_weight), loss.temperature
    chance = {purpose: generator(seed, purpose) for purpose in ("noise", "inner attack", "directions")}

    def terms(student: nn.Module, weights: Weights, x: Tensor, y: Tensor, *known: Tensor) -> Terms:
        if loss.inner_attack == "none" and not known:
            x = noisy(x, loss, threat, chance["noise"], noise_sigma)
        seen, found = Seen(student, teacher, x, x, y), Terms()
        if known:
            seen.t["x"] = known[0]
        if loss.inner_attack != "none":
            seen.z = attack(seen, loss, threat, chance["inner attack"])
        if "iga" in weights:
            seen.t[seen.at("z")], g_t, *v = known or lesson(teacher, seen.z, y, kind, chance["directions"], classes)
            seen.s[seen.at("z")], distance = align(student, seen.z, v[0] if v else y, g_t)
            found["iga"] = shaped(distance, g_t, loss.iga_norm)
        b = loss.trust_power if "self" in weights else None
        if loss.ce_weight > 0 or seen.at(loss.labels_at) == seen.at("z"):  # else a pass that weighs nothing
            found["ce"] = cross_entropy(seen.f_s(loss.labels_at), y, loss.label_smoothing)
        if loss.kl_weight > 0:
            found["kl"] = soft_labels(seen, loss.soft_labels_at, T, b)
        if "clean" in weights:
            found["clean"] = clean(seen, T)
        if b is not None:
            found["self"] = introspection(seen, loss.soft_labels_at, T, b)
        if "igdm" in weights:
            found["igdm"] = indirect_gradient(seen, T)
        return found

    def weights(step: int, steps: int) -> dict[str, float]:
        progress = step / steps
        now = {"ce": loss.ce_weight, "kl": loss.kl_weight}
        if loss.clean_weight > 0:
            now["clean"] = loss.clean_weight
        if loss.self_weight > 0 and progress >= DISTRUST_AFTER:
            now["self"] = loss.self_weight
        if loss.igdm_weight > 0:
            now["igdm"] = loss.igdm_weight * progress
        if iga_weight > 0 and progress >= loss.iga_start and step % loss.iga_every == 0:
            ramp = min(1.0, (progress - loss.iga_start) / loss.iga_ramp) if loss.iga_ramp > 0 else 1.0
            now["iga"] = iga_weight * ramp * loss.iga_every
        return now

    return Recipe(terms, weights, chance)


def shaped(d: Tensor, g_t: Tensor, norm: str) -> Tensor:
    """What `--iga-norm` makes of the distance, (B,)."""
    if norm == "l2-squared":
        return d.square()
    return bent_distance(d, g_t) if norm == "l2-log" else d


def attack(seen: Seen, loss: LossSettings, threat: ThreatModel, starts: Generator) -> Tensor:
    """z, (B, C, H, W), found against the student in eval mode, which comes back in train mode."""
    student, teacher, x, y = seen.student, seen.teacher, seen.x, seen.y

    def objective(at: Tensor) -> Tensor:
        if loss.inner_attack == "ce":
            return cross_entropy(student(at), y)
        return distillation_kl(student(at), seen.f_t("x") if loss.inner_attack == "kl" else teacher(at), 1.0)

    # A single step from beside x ends in a corner of the ball, which networks learn by heart (arXiv:2001.03994).
    far = loss.inner_attack == "ce" or loss.inner_steps == 1
    start = anywhere(x, threat, starts) if far else beside(x, starts)
    student.eval()
    z = climb(objective, x, start, threat, steps=loss.inner_steps)
    student.train()
    return z
