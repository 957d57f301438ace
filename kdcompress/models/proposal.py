"""A student to begin with, for a teacher that is at hand; counted without timm, whose import takes seconds."""

Arguments = dict[str, list[int]]
"""Of timm's resnet18."""


def smaller_student(teacher: int, classes: int, channels: int) -> tuple[Arguments, int]:
    """Arguments of timm's resnet18 that leave at most half of the teacher's parameters, and how many these are.

    The smallest that is tried, where none is so small. Arithmetic is another matter: on small images a student's early
    layers keep the resolution.

    Args:
        teacher: its parameters.
        channels: of the images.
    """
    tried = [(arguments_of(first), parameters_of(first, classes, channels)) for first in (None, 64, 32, 16, 8, 4)]
    return next(((arguments, size) for arguments, size in tried if size <= teacher / 2), tried[-1])


def arguments_of(first: int | None) -> Arguments:
    """One block a stage, `first` channels in the first and twice as many in each next; None: the whole network."""
    return {} if first is None else {"layers": [1] * 4, "channels": [first * times for times in (1, 2, 4, 8)]}


def parameters_of(first: int | None, classes: int, channels: int) -> int:
    """Of timm's resnet18 with those arguments, whose stem keeps its 64 channels."""
    stem = 64 * 49 * channels
    if first is None:
        return 11_167_104 + stem + 513 * classes
    c = first
    stage_1 = 9 * 64 * c + 9 * c * c + 4 * c + (66 * c if c != 64 else 0)  # and a shortcut, where the width changes
    return stem + 128 + stage_1 + 1176 * c * c + 84 * c + (8 * c + 1) * classes


def as_pairs(arguments: Arguments) -> list[str]:
    """As `--student-arg` takes them."""
    return [f"{name}={','.join(map(str, values))}" for name, values in arguments.items()]
