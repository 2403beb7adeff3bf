"""Samples, predictions and raw labels, read and written."""
