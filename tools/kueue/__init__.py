"""Kueue on the local cluster: built from its Go module, and deployed as it is shipped."""
