"""Chat templates: the built-in ones, one file for each model family, and the sandbox that renders any template.

A template is an untrusted program: the model's own comes with the model. It is not rendered by transformers for two
reasons. Preflight does not have transformers, and a rendered row must not depend on the date.
"""
