"""Options whose values belong to another option's value: a recipe's weights, an optimizer's rates."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdcompress.settings.loss import RECIPES
from kdcompress.settings.run import OPTIMIZERS

_OF_THE_GRADIENT_TERM = ("iga_start", "iga_ramp", "iga_every", "align", "iga_norm")


def overruled(filed: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What a file of options says for its own recipe (optimizer, average, inner attack), where another is asked for.

    A run leaves a file of all that it was trained with: under another recipe its weights would make something else
    of that recipe, by its name. What the file does not say of itself, it says of any.

    >>> overruled({"optimizer": "adamw", "lr": 0.003, "epochs": 5}, {"optimizer": "sgd"})
    {'optimizer': ('lr',)}

    Args:
        filed: the file's values, called as fields.
        asked: what is asked for beside the file, and counts before it.

    Returns:
        By the option that is asked for otherwise, those of the file that are to be left aside.
    """
    found = {}
    for option in ("recipe", "inner_attack", "optimizer", "average"):
        if option in filed and option in asked and str(filed[option]) != str(asked[option]):
            gone = tuple(name for name in dict.fromkeys(_followers(option, str(asked[option]))) if name in filed)
            if gone:
                found[option] = gone
    return found


def _followers(option: str, value: str) -> Iterator[str]:
    if option == "recipe":
        recipe = RECIPES.get(value, {})
        yield from (name for fields in RECIPES.values() for name in fields)
        yield from ("ce_weight", "label_smoothing", "inner_steps")
        yield from ("attack_steps", "beta")  # of training without a teacher
        if recipe.get("iga_weight") == 0:
            yield from _OF_THE_GRADIENT_TERM
        if "inner_attack" in recipe or value == "trades":  # which take no noise
            yield "noise_sigma"
    elif option == "inner_attack":
        yield "input_noise"
        if value == "none":
            yield "inner_steps"
    elif option == "optimizer":
        yield from next(iter(OPTIMIZERS.values()))
    else:
        yield from ("ema", "swa_start")
