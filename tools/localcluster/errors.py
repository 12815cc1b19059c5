"""The error that users see: it says what went wrong and what to do, without a traceback."""

from __future__ import annotations


class ClusterError(Exception):
    """Something that the cluster needs is missing or did not happen.

    The message says what was tried, what was found and, where there is one, the remedy. The command line prints it and
    exits with 1.
    """


class UnsupportedError(ClusterError):
    """A lever needs the local cluster, but the target is the cluster of KUBECONFIG."""
