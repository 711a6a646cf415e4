"""Hostile clients, and rules that aggregate in spite of them."""
