"""Training: `simulate`, the loop of rounds, and what a federation is built of."""
