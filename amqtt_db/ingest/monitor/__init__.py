"""Metrics and health, served over HTTP: computed on request from counts that are kept anyway."""
