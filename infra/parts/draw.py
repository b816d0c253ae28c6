"""Which arm a session is in: by a hash, so that every process says the same without asking another."""

import hashlib


def place_of(project: str, session_id: str) -> float:
    """A number in [0, 1) that is the session's own; it is in the arm whose share is greater."""
    digest = hashlib.sha256(f"{project}\n{session_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
