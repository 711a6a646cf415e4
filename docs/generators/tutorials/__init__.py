"""Tutorials run when the site is built: their outputs are checked, and notebooks made of them."""
