"""Secure aggregation: a server learns the sum of what clients send, and none of their messages."""
