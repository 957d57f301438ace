"""The CIFAR layouts that robust checkpoints come in, with the published names of their weights."""

from kdcompress.models.layouts.recognise import (
    LAYOUTS,
    UNREADABLE,
    assumption,
    build_layout,
    layout_state,
    read_arguments,
    recognise,
)

__all__ = ["LAYOUTS", "UNREADABLE", "assumption", "build_layout", "layout_state", "read_arguments", "recognise"]
