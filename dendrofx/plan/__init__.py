"""The plan: what was decided for every site and why, as data, as text and as a file."""
