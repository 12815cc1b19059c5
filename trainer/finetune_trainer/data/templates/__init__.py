"""Chat templates: the built-in ones, one file a family, and the sandbox in which any template is rendered.

A template is a program, and often a stranger's: the model's own comes with the model. It is rendered here and not by
transformers, because preflight has none, and because a row must not depend on the day it was rendered.
"""
