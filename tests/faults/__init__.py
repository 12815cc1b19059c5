"""Faults between the operator and the API server, and tables of what the operator makes of them.

`python -m faults` prints the tables; docs/testing.md says how to run it.
"""
