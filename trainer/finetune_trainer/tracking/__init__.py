"""Metrics for a tracker of experiments: MLflow, Weights & Biases or Trackio.

Their clients run in a process of their own, which gets lines of JSON. A server that is down, a client that waits or
crashes, and what it takes from memory and imports concern that process alone. Its environment has the tracker's
credentials and nothing else of the trainer's.
"""
