from hypothesis import settings

# The same examples in every run; the machine's speed decides nothing.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("repeatable")
