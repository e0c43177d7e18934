"""While a model is traced: one trace at a time, and other threads' calls left alone.

torch's tracers patch `nn.Module` for the whole process: a module that another thread calls meanwhile would be traced too, or fail.
`tracing` lets one thread trace at a time, and makes the tracers pass on what other threads call.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import PythonKeyTracer, _ModuleStackTracer

_ONE_AT_A_TIME = threading.RLock()
_MISSING, _A_TENSOR = object(), torch.zeros(())


@contextmanager
def tracing(model: nn.Module, *tracers: type[fx.Tracer]) -> Iterator[None]:
    """Trace `model` inside, by torch's tracers or others; torch's remarks beside the errors that it raises are held back.

    Inside, `len(x)` of a tensor in the model's own code is its size, known when it runs, and not a number fixed now; and
    `isinstance(x, Tensor)` takes a traced value for the tensor that it stands for.
    """
    remarks = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    with _ONE_AT_A_TIME, ExitStack() as stack:
        for kind in (PythonKeyTracer, _ModuleStackTracer, *tracers):
            stack.enter_context(_of_this_thread(kind))
        for namespace in _namespaces(model):
            stack.enter_context(_instead(namespace, "len", length))
            stack.enter_context(_instead(namespace, "isinstance", is_instance))
        # where export fails it prints the graph so far; this module's print alone is another one
        if (exporter := sys.modules.get("torch.export._trace")) is not None:
            stack.enter_context(_instead(vars(exporter), "print", lambda *_, **__: None))
        before, remarks.disabled = remarks.disabled, True
        stack.callback(setattr, remarks, "disabled", before)
        yield


@contextmanager
def plain_attention() -> Iterator[None]:
    """Switch off torch's fused encoder layers, which hide the Linears that they run, for the whole process."""
    with _ONE_AT_A_TIME:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def bags_of_samples() -> Iterator[None]:
    """Count the bags of `embedding_bag(x, weight)`, x [samples, ids], by samples, for the whole process.

    torch counts them by `arange(0, x.numel(), x.size(1))`, of which export says that it holds for two samples or more alone.
    """
    with _ONE_AT_A_TIME:
        torch_bags = F.embedding_bag

        def bags(input: Tensor, weight: Tensor, offsets: Tensor | None = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
            if input.dim() != 2 or input.is_nested or offsets is not None:
                return torch_bags(input, weight, offsets, **kwargs)
            places = torch.arange(input.size(0), dtype=input.dtype, device=input.device) * input.size(1)
            if (weights := kwargs.get("per_sample_weights")) is not None:
                kwargs["per_sample_weights"] = weights.reshape(-1)
            return torch_bags(input.reshape(-1), weight, places, **kwargs)

        def called(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
            names = ("offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse", "per_sample_weights",
                     "include_last_offset", "padding_idx")  # fmt: skip
            return bags(input, weight, **dict(zip(names, args, strict=False)), **kwargs)

        F.embedding_bag = called
        try:
            yield
        finally:
            F.embedding_bag = torch_bags


def length(value: Any) -> Any:  # noqa: ANN401
    """Return what `len` gives; of a traced value a node, of a tensor its first size."""
    if isinstance(value, fx.Proxy):
        return value.tracer.create_proxy("call_function", builtins.len, (value,), {})
    return value.size(0) if isinstance(value, Tensor) and value.dim() > 0 else builtins.len(value)


def is_instance(value: Any, kinds: Any) -> bool:  # noqa: ANN401  (Python's own)
    """Return what `isinstance` gives; of a traced value, what it would give of a tensor."""
    if builtins.isinstance(value, fx.Proxy):
        return builtins.isinstance(value, kinds) or builtins.isinstance(_A_TENSOR, kinds)
    return builtins.isinstance(value, kinds)


def _namespaces(model: nn.Module) -> list[dict[str, Any]]:
    """Return the globals of the code that the model's modules run, torch's own left out."""
    found = {}
    for module in model.modules():
        for forward in (getattr(type(module), "forward", None), vars(module).get("forward")):
            namespace = getattr(getattr(forward, "__func__", forward), "__globals__", {})
            name = str(namespace.get("__name__", ""))
            if namespace and not name.startswith(("torch.", "dendrofx.")):
                found[id(namespace)] = namespace
    return list(found.values())


@contextmanager
def _instead(namespace: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Give a name for a builtin to some module's globals; where these have one of their own, it stays."""
    if name in namespace:
        yield
        return
    namespace[name] = value
    try:
        yield
    finally:
        del namespace[name]


@contextmanager
def _of_this_thread(kind: type[fx.Tracer]) -> Iterator[None]:
    """Let tracers of a kind see what this thread calls, and nothing else."""
    owner, was = threading.get_ident(), {k: vars(kind).get(k, _MISSING) for k in ("call_module", "getattr")}
    call, get = kind.call_module, kind.getattr

    def keep(self: fx.Tracer) -> None:
        """A call that another thread began looks these up when it has its turn again, and all may be over by then."""
        vars(self).setdefault("call_module", MethodType(call_module, self))
        vars(self).setdefault("getattr", MethodType(getattr_, self))

    def call_module(self: fx.Tracer, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        keep(self)
        return call(self, m, forward, args, kwargs) if threading.get_ident() == owner else forward(*args, **kwargs)

    def getattr_(self: fx.Tracer, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401
        keep(self)
        return get(self, attr, attr_val, parameter_proxy_cache) if threading.get_ident() == owner else attr_val

    kind.call_module, kind.getattr = call_module, getattr_  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, value in was.items():
            if value is _MISSING:
                delattr(kind, name)
            else:
                setattr(kind, name, value)
