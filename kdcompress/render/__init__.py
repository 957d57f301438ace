"""A result in, something to look at out."""
