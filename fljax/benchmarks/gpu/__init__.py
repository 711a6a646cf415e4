"""A report on one accelerator: protocols, scaling, profile, kernels, other simulators."""
