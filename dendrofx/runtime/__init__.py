"""What TorchScript compiles: the parts of routed sites, live rows and cascades that run in an artifact, and nothing else.

TorchScript reads the source of these files: no postponed annotations, `typing`'s `List` and `Optional`, plain types, no globals in
methods, `zip` without `strict`. `fbgemm.py` alone is Python: it lays weights out before anything is compiled.
"""
