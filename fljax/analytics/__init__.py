"""Analytics: statistics of what clients hold, without training a model."""
