"""A trained model as graphs that run without torch."""
