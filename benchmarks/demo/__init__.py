"""The embedded demo suite: every kind of task in eight languages, generated, offline and always the same."""
