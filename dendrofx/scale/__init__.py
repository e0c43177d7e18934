"""Datasets that are too large for one call, or for one machine: a saved module on all of one, or a calibration by all of one.

    dataset --> parts --> Worker --> one file per part, and one small row about it
                                       the driver adds the rows up; a manifest names the files that count

    dataset --> parts --> Drawing, Measuring --> samples, and sums over all samples, which the driver adds up

map_batches  the call that answers a dataset
calibration  what `transform` fits to: some samples of a dataset, and statistics of all
tally        what is kept of a part, and what is added up
parts        a dataset as parts: row groups of Parquet files, dicts of arrays
columns      columns as the tensors that a module takes, and its answers as columns
joining      the answers of parts as one array for each column
worker       a part's answers, written whole or not at all
local        parts by the threads of this process
on_ray       parts by Ray's actors, on many machines
folder       that a run's files are written to, one run's alone
result       what a run returns, and the manifest that it ends with
"""
