"""What is known of the cluster: a cache that watches and lists feed.

`event_filter` drops what is not new before kopf handles it, `event_handler` puts the rest into the `cache` and adds its
key to the work queue, and `resync` lists everything now and then, since watches lose deletions.
"""
