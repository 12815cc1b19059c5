"""The memory of a training, estimated from the sizes of model, adapter and micro-batch.

The package does not import torch, because preflight makes the estimate before a GPU is requested. The trainer uses the
same estimate to split a step into micro-batches. benchmarks/memory_estimate.py compares every formula with real
allocations.
"""
