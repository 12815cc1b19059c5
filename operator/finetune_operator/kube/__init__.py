"""The edge to Kubernetes: the only package that knows its client.

`api` says what the operator asks of Kubernetes, `client` asks it, `errors` names what may come back; `lease` and
`events` are the two protocols that are ours to speak.
"""
