"""The demo: one YAML to a tuned model, with every command that a user would type shown as it runs.

Its parts serve the cluster tests too: they install the operator, fetch what a job made, and prepare a real model.
"""
