"""The operator: FineTuneJobs in, Jobs and statuses out."""
