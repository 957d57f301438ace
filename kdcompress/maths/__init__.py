"""The equations: tensors in, tensors out. No files, no printing, no clock, no hidden random state.

Shape letters: B batch, C channels, H height, W width, K classes, D = C H W.
Losses return one value an example; the caller takes the mean.
"""
