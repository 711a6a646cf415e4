"""Audits: attacks on what a federation releases, and what they prove of its privacy."""
