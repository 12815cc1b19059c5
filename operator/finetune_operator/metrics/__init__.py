"""Prometheus metrics: what is known about jobs, computed from the cache at the scrape, and what the operator has done.

A gauge about jobs is a sum over the status of the FineTuneJobs that exist. It needs no memory, so a restart or another
leader changes nothing. A counter counts what this replica has done: an end of an attempt counts when the write of the
status that ends it has succeeded. The API server lets exactly one replica make that write, so no restart and no other
leader counts it again. Only the leader has series about jobs; all replicas together have each of them once.
"""
