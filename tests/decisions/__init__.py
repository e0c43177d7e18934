"""Recorded decisions: what `transform` decides where nothing is timed, recorded, so that a change of structure moves no decision.

    python -m tests.decisions write            # records every subject on this machine
    python -m tests.decisions check [NAME ...] # decides again, and lists what differs

Decisions are the same on every run of one machine, and may differ between CPUs in the last bits of a tolerance: the record says
which CPU it was made on, and `check` refuses to compare on another. Outputs are compared bit for bit, by their digest.
"""
