"""Randomized smoothing of a split: votes, what is asked of them, and why an image is abstained from."""
