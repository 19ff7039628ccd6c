"""Sparkplug B: its layout, its values, what births say of metrics, and the decoder (extra ``sparkplug``)."""
