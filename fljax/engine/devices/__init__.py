"""Devices, processes, placement and compilation."""
