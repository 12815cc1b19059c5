"""The result of a run in its output location: the committed adapter, and the pointer to the newest run."""
