"""Reads from and writes to S3, the Hub and local directories."""
