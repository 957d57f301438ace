"""How long an attack will take: the work that is left, at the pace seen so far."""

from collections.abc import Sequence


def seconds_left(
    seconds: float, work: float, *, standing: int, in_stage: float, costs: Sequence[float], later: float
) -> float | None:
    """Seconds until the last image is judged; None before there is a pace.

    Pessimistic: images that stand now are taken to stand to the end, as most of them do.

    Args:
        seconds, work: what was spent and done in this process, in forwards of one image.
        standing: images of this chunk that still stand.
        in_stage: work done in the running stage.
        costs: forwards an image of the running stage and of those after it, for this chunk.
        later: work expected for the chunks that follow.
    """
    if work <= 0:
        return None
    running = max(0.0, standing * costs[0] - in_stage) if costs else 0.0
    return seconds / work * (running + standing * sum(costs[1:]) + later)
