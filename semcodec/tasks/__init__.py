"""What differs between tasks: labels, predictions, scores."""
