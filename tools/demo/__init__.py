"""The demo: from one YAML to a tuned model. It prints every command that a user would type.

The cluster tests use its parts too: they install the operator, download a job's output, and prepare a real model.
"""
