"""Contracts and helpers that all rooms share."""
