"""From stored bytes to tokens: open, detect, validate line by line, convert, template, tokenize, pack."""
