"""Sound bounds of a network's outputs over a ball: its graph, intervals, CROWN, and what they prove of an image."""
