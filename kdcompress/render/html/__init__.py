"""A report as one self-contained page: no script, no request, light, dark and on paper."""
