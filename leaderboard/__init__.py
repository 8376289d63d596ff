"""From results to a static site."""
