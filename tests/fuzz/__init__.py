"""Hostile calls: whatever Python and torch let a caller pass, and what must come of it.

draws.py    a call from bytes: the same for hypothesis, for a coverage-guided fuzzer and for a seeded generator
tensors.py  tensors of every dtype, layout and device, with values of every size
targets.py  what is called: small transformed modules, and their scripts, saved, loaded and frozen
judge.py    the original's answer, or an error that says what the module takes; anything else is a violation
cases.py    violations that were found once and have been mended, each as small as it gets
worker.py   the process that the calls are made in; a crash ends it alone
report.py   what became of them, as text

python -m tests.fuzz --cases 100000 --seed 0      all of it
python -m tests.fuzz --show 0a1b2c                one call again, by its bytes
"""
