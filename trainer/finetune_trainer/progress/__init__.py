"""Progress reports of a run: the record, the step rate, and the HTTP client that posts to the operator."""
