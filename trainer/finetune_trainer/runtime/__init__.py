"""The process's log, the versions of its packages, and errors of its machine."""
