"""The suites: one module each, a task is one declaration."""
