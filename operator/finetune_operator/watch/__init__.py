"""kopf, used as a watch and nothing else: its watches, the session that they read through, its settings."""
