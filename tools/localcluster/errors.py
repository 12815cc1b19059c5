"""The one error a person sees: what went wrong and what to do, never a traceback."""

from __future__ import annotations


class ClusterError(Exception):
    """Something the cluster needs is missing or did not happen.

    The message is complete on its own: what was tried, what was seen and, where one
    exists, the remedy. The command line prints it and exits with 1.
    """


class UnsupportedError(ClusterError):
    """This lever needs the local cluster, and the target is somebody else's."""
