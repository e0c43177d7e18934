"""How a model is called and what it returns, kept for models whose graph knows tensors only.

A graph has tensors in and tensors out. Callers have more: defaults, keyword arguments, flags, dicts of tensors, and outputs that
are dicts, dataclasses or nested tuples. `CallForm` holds what lies between, so that a rewritten module is called as the model was:

    model(input_ids=ids, attention_mask=mask, use_cache=False)   ->   BaseModelOutput(last_hidden_state=...)
    graph(input_ids, attention_mask)                             ->   {"last_hidden_state": ...}

Whatever is no tensor (a flag, a mask that is None) was fixed when the model was captured. A call that says otherwise, or leaves out
what then takes another value by default, is refused by name. A scripted module returns what the graph returns: one tensor, a
dict of tensors, or a tuple.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.values.guards import SizeError, broken, refusal
from dendrofx.values.inputs import Inputs, show
from dendrofx.values.outputs import TreeSpec, flatten
from dendrofx.values.signature import MISSING, OPEN, bind, flags, names, shown, signature_of

AGAIN = "transform it again with example_inputs= that hold this argument"


@dataclass(frozen=True)
class CallForm:
    """The call of a model.

    Attributes:
        model: its class name, for messages.
        signature: of its forward; defaults that say nothing about themselves are left out.
        given: the form of the arguments that were given when the model was captured, a dict by parameter.
        tensors: names of the tensors among them, in order: those of the graph's inputs.
        flags: values of keywords that the model takes for itself when they are left out, from its config.
        output: the form of what it returns; None where the graph returns it as it is.
        guards: what the graph assumes about the sizes of its inputs; see `values/guards.py`.
    """

    model: str
    signature: inspect.Signature
    given: TreeSpec
    tensors: tuple[str, ...]
    flags: Mapping[str, Any]
    output: TreeSpec | None = None
    guards: tuple[str, ...] = ()

    @staticmethod
    def of(model: nn.Module, example: Inputs) -> CallForm:
        """Return the form of the call that `example` makes.

        Args:
            model: the original.
            example: inputs as the caller writes them.

        Raises:
            InputError: the example does not fit the signature, or holds what a graph cannot.
        """
        signature, name = signature_of(model), type(model).__name__
        arguments = bind(signature, name, example)
        given = flatten(arguments)[1]
        if left := given.leaves("left out"):
            path = shown(left[0].name, signature)
            raise InputError(
                f"{name} takes {path}, a {left[0].value}: a graph takes tensors and plain values. Wrap the model in a module"
                " whose forward takes each tensor under a name of its own"
            )
        return CallForm(name, signature, given, names(given, signature), flags(model, signature))

    @staticmethod
    def of_signature(model: nn.Module) -> CallForm:
        """Return the form of a call with a tensor for every parameter that has no default, and nothing else.

        Raises:
            InputError: there is no such parameter.
        """
        signature, name = signature_of(model), type(model).__name__
        needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in OPEN]
        if not needed:
            raise InputError(f"{name} says nothing about its inputs: pass example_inputs= or calibration=")
        parts = tuple((n, TreeSpec(n, "tensor")) for n in needed)
        return CallForm(name, signature, TreeSpec("", kind=dict, parts=parts), tuple(needed), flags(model, signature))

    def returning(self, output: Any) -> CallForm:  # noqa: ANN401
        """Return this call with the form of its output.

        Raises:
            InputError: an output that cannot be put together again from its tensors.
        """
        tensors, form = flatten(output)
        _check_output(self.model, tensors, form)
        return replace(self, output=form)

    def plain(self, inputs: Inputs) -> Inputs:
        """Return a caller's inputs as the graph takes them: its tensors by name, flags at their captured values dropped.

        Raises:
            InputError: an argument that was not there, or had another value, when the model was captured, or a size that the
                graph was not captured for.
        """
        arguments = bind(self.signature, self.model, inputs)
        found: list[Tensor] = []
        for name, form in self.given.parts:
            value = arguments.pop(name, MISSING)
            self._match(form, self._default(name) if value is MISSING else value, found, value is MISSING)
        for name, value in arguments.items():
            self._refuse_new(name, value)
        self.check(dict(zip(self.tensors, found, strict=True)))
        return Inputs((), tuple(zip(self.tensors, found, strict=True)), inputs.shared)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise `SizeError` for sizes that the graph was not captured for."""
        if self.guards and (guard := broken(self.guards, tensors)) is not None:
            raise SizeError(refusal(self.model, guard))

    def _default(self, name: str) -> Any:  # noqa: ANN401
        default = self.signature.parameters[name].default
        kind = self.signature.parameters[name].kind
        empty: Any = {} if kind is inspect.Parameter.VAR_KEYWORD else ()
        return empty if kind in OPEN else MISSING if default is inspect.Parameter.empty else default

    def _match(self, form: TreeSpec, value: Any, found: list[Tensor], left_out: bool = False) -> None:  # noqa: ANN401
        """Collect the tensors of an argument that has the captured form; raise `InputError` where it has another."""
        name = shown(form.name, self.signature)
        if form.leaf == "tensor":
            if not isinstance(value, Tensor):
                missing = left_out or value is MISSING or value is None
                said = "is missing" if missing else f"cannot be {show(value)}"
                raise InputError(f"{self.model} was captured with {self}; {name} {said}")
            found.append(value)
        elif form.leaf:
            if not _same(form.value, value):
                said = f"leave out {name}, which is {show(value)} then" if left_out else f"take {name}={show(value)}"
                raise InputError(f"{self.model} was captured with {self} and cannot {said}: {AGAIN}")
        elif isinstance(value, Mapping) if issubclass(form.kind, Mapping) else type(value) is form.kind:
            self._match_parts(form, value, found)
        else:
            said = "is missing" if left_out or value is MISSING else f"cannot be {show(value)}"
            raise InputError(f"{self.model} was captured with {self}; {name} {said}")

    def _match_parts(self, form: TreeSpec, value: Any, found: list[Tensor]) -> None:  # noqa: ANN401
        """Collect the tensors of a container, part by part; see `_match`."""
        own = flatten(value)[1].parts if not isinstance(value, Mapping) else ()
        items = dict(value) if isinstance(value, Mapping) else {k: _part(value, k) for k, _ in own}
        known = {key for key, _ in form.parts}
        for key in [k for k in items if k not in known]:
            self._refuse_new(str(key) if self._is_open(form) else f"{form.name}.{key}", items[key])
        for key, part in form.parts:
            default = self.flags.get(str(key), MISSING) if self._is_open(form) else MISSING
            self._match(part, items.get(key, default), found, key not in items)

    def _is_open(self, form: TreeSpec) -> bool:
        parameter = self.signature.parameters.get(form.name)
        return parameter is not None and parameter.kind is inspect.Parameter.VAR_KEYWORD

    def _refuse_new(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Raise `InputError` for an argument that was not there at capture, unless it says what the model does without it."""
        parameter = self.signature.parameters.get(name)
        if parameter is not None and parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for key, inner in value.items():
                self._refuse_new(key, inner)
            return
        default = self.flags.get(name, MISSING) if parameter is None else parameter.default
        if default is MISSING or not _same(default, value):
            path = shown(name, self.signature)
            raise InputError(f"{self.model} was captured with {self} and cannot take {path}={show(value)}: {AGAIN}")

    def call(self, model: nn.Module, plain: Inputs) -> Any:  # noqa: ANN401
        """Return what a model that is called this way returns for a graph's inputs."""
        return self.call_with(model, [dict(plain.kwargs)[name] for name in self.tensors])

    def call_with(self, model: nn.Module, tensors: Sequence[Any]) -> Any:  # noqa: ANN401  (the model's output)
        """Call a model as `call` does, with the tensors in order."""
        bound = self.signature.bind_partial()
        bound.arguments.update(self.given.unflatten(tensors))
        return model(*bound.args, **bound.kwargs)

    def restore(self, raw: Any) -> Any:  # noqa: ANN401
        """Return what the model would have returned, from what the graph returned."""
        if self.output is None:
            return raw
        if self.output.leaf == "tensor":
            return self.output.unflatten([raw])
        return self.output.unflatten(list(raw.values()) if isinstance(raw, Mapping) else list(raw))

    def __str__(self) -> str:
        """Return `the inputs input_ids, attention_mask, use_cache=False`."""
        tensors = [shown(leaf.name, self.signature) for leaf in self.given.leaves("tensor")]
        constants = [f"{shown(c.name, self.signature)}={c.value!r}" for c in self.given.leaves("constant")]
        return "the inputs " + ", ".join([*tensors, *constants])


def _part(value: Any, key: Any) -> Any:  # noqa: ANN401
    """Return a part of a container by the key that `flatten` gives it."""
    return value[key] if isinstance(value, tuple | list) and isinstance(key, int) else getattr(value, key)


def _check_output(model: str, found: list[Tensor], output: TreeSpec) -> None:
    """Raise `InputError` for an output that cannot be put together again from its tensors."""
    if left := output.leaves("left out"):
        raise InputError(
            f"{model} returns {left[0].name}, a {left[0].value}, which a graph cannot: turn it off, for a cache with"
            " use_cache=False among the inputs or in the model's config"
        )
    if not found:
        raise InputError(f"{model} returns no tensor")
    try:
        same = flatten(output.unflatten(found))[1] == output
    except Exception:
        same = False
    if not same:
        raise InputError(
            f"{model} returns a {getattr(output.kind, '__name__', output.kind)}, which cannot be made again from its fields:"
            " return a dict or a tuple"
        )


def _same(captured: Any, value: Any) -> bool:  # noqa: ANN401
    return type(captured) is type(value) and bool(captured == value)
