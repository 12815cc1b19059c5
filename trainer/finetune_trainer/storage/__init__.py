"""Reading from and publishing to S3, the Hub and local directories."""
