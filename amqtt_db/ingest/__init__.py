"""Ingest: puts messages into the journal."""
