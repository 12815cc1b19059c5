"""The data pipeline, from stored bytes to packed tokens: open, detect, validate, convert, render, tokenise, pack."""
