"""Metrics and health, served over HTTP: made of what is counted anyway, and only when somebody asks."""
