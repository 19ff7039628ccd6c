"""Which route a topic takes, and the way of its payloads to records."""
