"""Accuracy, bytes, cost and pictures of a pipeline over real packets."""
