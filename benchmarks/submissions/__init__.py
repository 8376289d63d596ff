"""The formats in which benchmarks take predictions: a declaration each, for `python -m benchmarks.submit`."""
