"""Prompt templates: the pool, filling them with raw samples, and extending them."""
