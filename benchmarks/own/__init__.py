"""Tasks that a user declares in files of their own, outside of the project: TOML, or Python."""
