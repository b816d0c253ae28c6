"""Ratchet."""
