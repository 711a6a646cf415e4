"""Partitions: who owns which rows, by rule and by name."""
