"""Readers: what other tools wrote, as arrays."""
