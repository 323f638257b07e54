"""Measures a device with the kernels and the session options that training uses."""
