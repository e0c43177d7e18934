"""Decision cascades, `transform(scope="model")`: a light model runs on all samples, the original again on those in doubt.

    outputs = light(inputs)                         the whole model, every block light (block routing and dead rows inside)
    score   = gate(outputs)                         the loss that the light model is expected to cost, in the budget's own terms
    split   = split_rows(score, tolerance)          samples are the rows
    result  = full(inputs, outputs, split)          gathers the inputs of the samples in doubt, runs the original, scatters

It needs batch independence: that a sample's output does not depend on its neighbours. This is proved on the graph
(`rows/samples.py`) and tried. A sample's route depends on that sample alone.
"""
