"""The ``promptcblue-metric`` command, and what the three commands share."""
