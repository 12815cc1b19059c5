"""`scripts/release-artifacts`: everything that a release publishes, but for the images."""
