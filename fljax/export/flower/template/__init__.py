"""A federation of fljax as a Flower app."""
