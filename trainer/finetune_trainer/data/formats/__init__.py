"""Bytes to records: file formats, compression, and the files that are refused as a whole."""
