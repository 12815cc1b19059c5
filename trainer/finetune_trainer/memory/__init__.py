"""How much memory a training takes: an estimate from sizes alone, and what follows from it.

No torch: preflight asks before a GPU is asked for, and the trainer chooses by the same numbers how a step is divided.
Every formula is held against real allocations by benchmarks/memory_estimate.py.
"""
