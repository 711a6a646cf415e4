"""Robust aggregators, and what mixes or bounds updates before them."""
