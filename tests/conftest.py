"""How properties are tried, in all tests."""

from hypothesis import settings

# A run of CI tries what the last one tried, and no example is judged by the clock.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=400)
settings.register_profile("explore", deadline=None, max_examples=10_000)
settings.load_profile("repeatable")
