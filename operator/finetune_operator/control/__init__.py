"""The control loop around the pure policy: informer cache, work queue, workers, leadership.

A key is the namespace and name of a FineTuneJob. A watch event enqueues a key. A worker takes the key, reads the cache,
asks the policy for a plan and carries it out (`controller`). The other modules make that cheap and safe.
"""

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

Owner = tuple[str, str]
"""Namespace and UID of a FineTuneJob. A label with the UID alone is no proof: any tenant can write one."""
