"""Reports on one accelerator: protocols, scaling, profile, kernels, other simulators."""
