"""Readers of the official file formats: small, declarative, strict."""
