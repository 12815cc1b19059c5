"""What goes into a run: the recipe's file, the objects of data and model, the adapter to continue from."""
