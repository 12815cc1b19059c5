"""Informers: lists and watches that feed a cache of the cluster.

`event_filter` drops events that bring nothing new before kopf handles them. `event_handler` puts the others into the
`cache` and enqueues their keys. `resync` lists everything periodically, because watches lose deletions.
"""
