"""Pure policy: (job, observed, configuration, now) -> Plan. No I/O, no clock, no environment.

Read `reconcile.reconcile` first. Each policy that it calls is a module of its own.
"""
