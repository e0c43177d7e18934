"""The version, in one place; `setup.py` reads it as text."""

VERSION = "0.5.0"
