"""A whole model with given forms at its sites, every row light: what plans replay, and full models that the caller named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.graph.block import block_of, finite_rows
from dendrofx.graph.record import record_rows
from dendrofx.graph.site_moments import fit_moments
from dendrofx.graph.sites import Site
from dendrofx.light import LightForm
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite, without_gates
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.runtime.control_scores import ConstantScore
from dendrofx.values.calibration import Calibration


def with_forms(
    base: fx.GraphModule, sites: Sequence[Site], forms: Mapping[str, LightForm], data: Calibration, seed: int
) -> RoutedModule:
    """Return the model with a form at each named site, every row light; a site that its form does not fit stays as it is.

    Forms are fitted on the calibration's first set.

    Raises:
        InputError: none fits.
    """
    rows, moments = record_rows(base, sites, data.fit, seed).rows, fit_moments(data, base, sites)
    branches: dict[str, Branches] = {}
    reasons: list[str] = []
    for site in [s for s in sites if s.name in forms]:
        form = forms[site.name]
        try:
            made = form.fit_data(finite_rows(block_of(base, site.nodes), rows[site.name], moments.get(site.name)))
            branches[site.name] = Branches(form, made, AlwaysLight(), ConstantScore(0.0))
        except InputError as error:
            reasons.append(str(error))
    if not branches:
        raise InputError(
            f"{', '.join(dict.fromkeys(map(str, forms.values())))} fits no block: {'; '.join(dict.fromkeys(reasons))}"
        )
    made = rewrite(base, [s for s in sites if s.name in branches], branches)
    module = without_gates(made, list(branches), watched=False)
    set_tolerances(module, dict.fromkeys(graph_names(module).values(), 1.0))
    return module
