"""Subscribing to any MQTT broker: messages are journaled, and acknowledged once they are on disk."""
