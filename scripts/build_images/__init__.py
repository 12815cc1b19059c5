"""Builds the images into archives, with Docker or without, with a registry or without.

`catalog` says which images there are and what they are made of; `docker` and `buildah` are two ways to make one;
`debian_base` makes a base image where none can be pulled; `archive` writes the result; `record` knows when nothing
changed. Standard library only: this runs before any environment exists.
"""
