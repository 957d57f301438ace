"""Networks: timm students, teachers from any layout, and the files they live in.

Every network that leaves this room is a `NormalisedModel`: inputs in [0,1] -> logits.
"""
