"""How messages get into the journal."""
