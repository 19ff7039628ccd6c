"""Which route a topic takes, and how its payloads become records."""
