"""Splits: rows and clients that are validated or tested on, and what must stay together."""
