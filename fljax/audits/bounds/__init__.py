"""Empirical privacy: what attacks prove of epsilon, from below."""
