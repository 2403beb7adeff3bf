"""The Hugging Face Hub: the client of all three pieces, and the metric's Space."""
