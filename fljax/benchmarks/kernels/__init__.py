"""Times the kernels of `fljax_kernels`, form beside form, and checks them against NumPy."""
