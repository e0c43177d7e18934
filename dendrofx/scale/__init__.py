"""A saved module on a dataset that is too large for one call, or for one machine.

    dataset --> parts --> Worker --> one file per part, and one small row about it
                                       the driver adds the rows up; a manifest names the files that count

map_batches  the call
parts        a dataset as parts: row groups of Parquet files, dicts of arrays
columns      columns as the tensors that a module takes, and its answers as columns
worker       a part's answers, written whole or not at all
local        parts by the threads of this process
on_ray       parts by Ray's actors, on many machines
result       what a run returns, and the manifest that it ends with
"""
