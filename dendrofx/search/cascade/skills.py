"""Router skill of a cascade's gate on samples that served nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.gates.model import margin_losses
from dendrofx.guarantee.budget import Budget
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.module import RoutedModule
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL
from dendrofx.values.skill import router_skill


@torch.no_grad()
def light_outputs(cascade: RoutedModule, batch: Inputs) -> tuple[Tensor, Tensor]:
    """Return the decision output of the light model, and the gate's scores, f32[N]."""
    parts = cascade_parts(cascade)
    assert parts is not None
    light, gate, _ = parts
    form = cascade.meta.get(CALL)
    plain = batch if form is None else form.plain(batch)
    outputs = light.forward([*plain.args, *(v for _, v in plain.kwargs)])
    read = next(n for n in cascade.graph.nodes if n.name == "decision")
    output = outputs[int(read.args[1])]
    return output, gate(output)


def cascade_skills(budget: Budget, reference: Tensor, light: Tensor, scores: Tensor, seed: int) -> tuple[str, ...]:
    """Return in words: by the budget's loss, and for decisions by the margin lost, of which there is more where flips are few."""
    losses = budget.losses(reference, light)
    count = f"on {len(losses)} test samples (0 random, 1 oracle)"
    skill = router_skill(scores, losses.float(), seed)
    lost = (
        f"{int(losses.sum())} flips of the light model"
        if budget.is_decision
        else f"mean loss {float(losses.mean()):.3g}"
    )
    lines = [f"router skill of the cascade's gate: {skill} {count}, {lost}"]
    if budget.is_decision:
        margin = router_skill(scores, margin_losses(reference, light).float(), seed)
        lines.append(f"router skill on the margin lost: {margin} {count}")
    return tuple(lines)
