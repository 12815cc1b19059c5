"""Loading the base model quantised, and what it takes."""
