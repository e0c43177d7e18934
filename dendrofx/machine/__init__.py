"""The machine: what its CPU can do, its memory and files, and how fast modules are on a clock that others disturb.

capability        what the CPU can do natively
cores             how many a process may use, and whether more wants to run
memory            weights shared and unshared; freed pages returned
files             written whole or not at all
race              callables timed in turns
pace              what a race says: how many times as fast, and whether to believe it
alone             the same on one thread
parallel_regions  where the threads of a call wait for each other, counted
neighbours        busy processes, to measure beside
progress          bars at a terminal
needed            packages that only some calls need
"""
