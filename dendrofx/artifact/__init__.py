"""What a saved module is, once it is loaded again."""
