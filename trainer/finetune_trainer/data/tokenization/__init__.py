"""Examples to tokens, and which of them are trained."""
