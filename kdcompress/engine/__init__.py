"""The gradient term of eq. 14, by whichever way suits the student: one file a way, and the choice between them."""

from kdcompress.engine.choice import Choice, Mode, choose
from kdcompress.engine.exact import Alignment, exact

__all__ = ["Alignment", "Choice", "Mode", "choose", "exact"]
