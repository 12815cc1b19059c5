"""The servers of trackers, as their packages ship them, for tests."""
