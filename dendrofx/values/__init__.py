"""Values that go in and come out: inputs and outputs of models, calibration sets, sizes, fingerprints, deviations and counts."""
