"""What Propositions 1 and 2 of arXiv:2110.12072 assume and say, looked at image by image. Estimates, all of it.

Both are about two networks around the same x. A search (`kdcompress.attacks.ascent`) takes the networks in float32 as
they are; every point that any search finds is then brought back into the ball and judged in float64, by all of them.
"""
