"""The path of settings to test: what it leaves out, and that it keeps what costs nothing."""

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.path import path, paths
from dendrofx.guarantee.settings import Setting, pareto

FLIP = Budget("flip", 0.02)  # of 300 test samples one may be lost


def setting(risk: float, cost: float, kin: str) -> Setting:
    return Setting(kin, {}, risk, cost, 0.0, None, kin=kin)


def chosen(*settings: Setting, budget: Budget = FLIP) -> list[Setting]:
    return path(settings, 1.0, budget, tested=300, searched=120)


def test_a_step_of_another_kin_must_be_worth_the_risk_to_end_the_walk() -> None:
    safe, hop, fast = setting(1e-4, 0.5, "a"), setting(3e-3, 0.45, "b"), setting(4e-3, 0.1, "c")
    assert chosen(safe, hop, fast) == [safe, fast]
    assert pareto([safe, hop, fast], 1.0) == [safe, hop, fast]


def test_steps_of_one_kin_cost_nothing_between() -> None:
    """The riskier one passes only where the safer one does."""
    steps = [setting(1e-3 * (i + 1), 0.5 * 0.8**i, "a") for i in range(5)]
    assert chosen(*steps) == steps


def test_as_many_paths_as_share_delta_without_allowing_fewer_losses() -> None:
    """One of 300 at 2 %: p = 0.0166, three times which is below 5 %; none of 300 at 1 %: p = 0.049, once."""
    settings = [setting(1e-4 * (i + 1), 0.5 - 0.1 * i, kin) for i, kin in enumerate("abcd")]
    found = paths(settings, 1.0, FLIP, tested=300, searched=120)
    assert 3 * FLIP.p_value(1, 300) <= FLIP.delta < 4 * FLIP.p_value(1, 300)
    assert 1 <= len(found) <= 3
    kinds = [{s.kin for s in part} for part in found]
    assert all(not a & b for i, a in enumerate(kinds) for b in kinds[:i])
    assert len(paths(settings, 1.0, Budget("flip", 0.01), tested=300, searched=120)) == 1


def test_a_gamble_is_no_first_step_and_other_losses_are_walked_safest_first() -> None:
    safe, gamble = setting(1e-4, 0.5, "a"), setting(0.05, 0.4, "b")
    assert chosen(safe, gamble)[0] is safe
    distances = Budget("deviation", 0.1)
    assert chosen(gamble, safe, budget=distances) == [safe, gamble]
    assert chosen() == []


def test_before_a_step_of_another_source_come_its_own_safer_thresholds() -> None:
    """Where the step fails, one of them may have passed; where it passes, they cost nothing."""
    a, b = object(), object()

    def at(source: object, threshold: float, risk: float, cost: float) -> Setting:
        return Setting("", {"model": threshold}, risk, cost, 0.0, source, kin=str(id(source)))

    safe, fast = at(a, 0.1, 1e-4, 0.5), at(b, 0.4, 2e-3, 0.1)
    dearer = [at(b, 0.1, 1.5e-3, 0.6), at(b, 0.2, 1.6e-3, 0.4), at(b, 0.3, 1.7e-3, 0.2)]
    assert chosen(safe, fast, *dearer) == [safe, dearer[1], dearer[2], fast]
    assert chosen(fast, *dearer) == [*dearer, fast]
    hidden = [at(b, 0.1, 1.1e-3, 0.6), at(b, 0.2, 1.2e-3, 0.56)]  # dearer and riskier than one that is not worth a test
    assert chosen(at(object(), 0.1, 1e-3, 0.55), fast, *hidden) == [*hidden, fast]
