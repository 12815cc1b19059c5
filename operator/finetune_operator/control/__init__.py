"""The machinery around the pure policy: queue, cache, worker, resync. It knows keys and plans, not what they mean.

A key is the namespace and name of a FineTuneJob. An event marks a key; a worker takes it, reads what is known, asks the
policy for a plan and carries the plan out (`controller`). Everything else here makes that cheap and safe.
"""

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

Owner = tuple[str, str]
"""Namespace and UID of a FineTuneJob. A label with its UID alone proves nothing: any tenant can write one."""
