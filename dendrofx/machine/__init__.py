"""The machine: what its CPU can do, memory, files, and races between modules on a clock that others disturb."""
