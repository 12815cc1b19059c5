"""kopf, used only for its watches: the handlers, the HTTP session that filters events, the settings."""
