"""Random small modules, and what must hold of each once it is transformed.

draft.py, features/   a seeded specification, and the source of a module written from it, one feature at a time
calls.py              calls of that module: of other sizes, values and flags, arguments given and left out
oracle.py             transforms it one way, and compares every call with the original's
report.py             the table of a run

python -m tests.property --count 2000 --seed 0      the whole run
python -m tests.property --show 17                   one module's source and what became of it
"""
