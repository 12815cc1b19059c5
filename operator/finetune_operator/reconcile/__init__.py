"""Pure policy: (job, observed, configuration, now) -> Plan. No I/O, no clock, no environment.

`reconcile.reconcile` is the page to read first; each policy it calls is a file of its own.
"""
