"""Attacks: on what a client trains on, on what it sends, and on all that is sent."""
