"""Flower: a run as an app whose clients are machines of their own."""
