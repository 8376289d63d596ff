"""From a run to something that is deployed."""
