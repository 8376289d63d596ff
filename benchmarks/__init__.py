"""What is measured: text, labels, splits, languages and scores."""
