"""The operator: it reconciles FineTuneJobs into batch Jobs, and writes their status."""
