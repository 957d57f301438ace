"""What a run minimises: a composition of per-example terms, where they are taken, and the weight of each."""

from kdcompress.training.recipes.distillation import distillation
from kdcompress.training.recipes.iga_weight import AUTO_IGA, effective_iga_weight, scaled_iga_weight
from kdcompress.training.recipes.recipe import Recipe, Terms
from kdcompress.training.recipes.without_teacher import adversarial_training, noise_training, trades

__all__ = [
    "AUTO_IGA",
    "Recipe",
    "Terms",
    "adversarial_training",
    "distillation",
    "effective_iga_weight",
    "noise_training",
    "scaled_iga_weight",
    "trades",
]
