"""A real Prometheus for tests: its programs from a Debian package, and a running server."""
