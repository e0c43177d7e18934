"""Budgets that hold on unseen data: what a budget is, how a path of settings is tested, and the certificate of the result.

budget       a loss in [0, 1] per sample, its limit alpha and the confidence 1 - delta
bounds       p-values of "the risk is above alpha"
sequence     Learn then Test along a path that was fixed before the test rows were seen
certificate  what was shown, and for whom
audit        later, on a few rows in production: does it still hold?
"""

from dendrofx.guarantee.audit import Audit, audit
from dendrofx.guarantee.bounds import binomial_p, hoeffding_bentkus_p, least_samples
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.certificate import Certificate

__all__ = [
    "Audit",
    "Budget",
    "Certificate",
    "audit",
    "binomial_p",
    "hoeffding_bentkus_p",
    "least_samples",
]
