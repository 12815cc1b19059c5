"""The inputs of a run: the recipe's file, the files of data and model, the adapter from which training continues."""
