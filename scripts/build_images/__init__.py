"""Builds the images into archives, with or without Docker, and with or without a registry.

`catalog` lists the images and their sources. `docker` and `buildah` are two ways to build an image. `debian_base` makes
a base image when none can be pulled. `archive` writes the result. `record` tells whether an archive is up to date. Only
the standard library is used, because this runs before any environment exists.
"""
