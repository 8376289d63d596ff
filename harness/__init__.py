"""How a backbone is prompted, trained and evaluated."""
