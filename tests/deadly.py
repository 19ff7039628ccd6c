"""A user's decoder that takes the process with it."""

from __future__ import annotations

import os


def decode(payload: bytes) -> object:
    """Numbers, but some payloads are fatal."""
    if payload == b"die":
        os._exit(7)
    return int(payload)
