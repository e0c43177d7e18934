"""The command `dendrofx`: from a model on disk to a routed file, and what can be asked of that file. Help loads no torch.

main       start it; say what is missing where click is
group      all subcommands, and how errors end
compare, transform, inspect, report, verify, run     one subcommand each
model      read a model: `module:callable`, a saved torch.export program, a folder that transformers loads
data, parquet, needed     read data as batches, write outputs; what only some files need
arguments, several     options that subcommands share; options of several numbers
ending     messages and exit codes where it does not end well, examples under the help
"""
