"""What the operator and the trainer agree on: recipe, progress, termination message, exit codes, manifest.

Standard library and pydantic only. The operator imports it, a scripted stand-in for the trainer imports it, and so
does the trainer: the wire formats have one definition each.
"""
