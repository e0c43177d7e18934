"""A transformed module as one file that needs torch alone, and that file as a module again.

archive      the records of a TorchScript file, digests over them, and its extra files
certificate  the certificate inside, sealed against changes
call_json    how the model was called and what it returned, as JSON
description  what else a file says about itself: its inputs, and the versions that wrote it
save         write the file, whole or not at all
load         read it back; nothing of the file's is unpickled by Python
"""
