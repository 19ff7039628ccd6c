"""Ingest from inside an amqtt broker: the plugin."""
