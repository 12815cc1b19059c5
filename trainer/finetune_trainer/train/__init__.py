"""The training itself: a recipe that reads from top to bottom in `run`."""
