"""Records to examples: the shapes of rows, what each of their keys means, and what is wrong with a row."""
