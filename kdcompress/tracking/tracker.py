"""What a tracker does."""

from typing import Protocol

Figures = dict[str, float]


class Tracker(Protocol):
    """Takes the figures of one run, from its beginning on. What it raises ends it, and not the run.

    Attributes:
        where: the figures can be found, for the user.
    """

    where: str

    def epoch(self, step: int, figures: Figures) -> None:
        """Those of an epoch that ended after so many steps; to be seen at once."""

    def ended(self, step: int, figures: Figures) -> None:
        """Those of the finished run."""

    def closed(self, finished: bool) -> None:
        """Nothing more comes; the run may go on later where it is not finished."""
