"""The trainer: from a recipe to a checksummed LoRA adapter.

Importing the package imports nothing heavy: torch and its friends are imported by the functions that use them,
so that a wrong recipe fails in under a second.
"""
