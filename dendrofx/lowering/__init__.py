"""Lowering a module to TorchScript, and what an artifact may hold.

script     TorchScript, plain or frozen, and its bytes
isolate    a compilation unit that ends with its module, for what is frozen
fitted     weights that something was fitted to take no others
operators  none but torch's own
spelled    numbers that are not finite, as TorchScript reads them
"""
