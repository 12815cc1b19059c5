"""Access to Kubernetes. No other package imports its client.

`api` is the Protocol of the requests, `client` implements it, `errors` has the errors. `lease` is the leader election,
`events` posts events.
"""
