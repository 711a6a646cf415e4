"""Benchmarks: timed workloads, and the same work given to other simulators."""
