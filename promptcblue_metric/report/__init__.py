"""What a run's scores and errors look like to people."""
