"""The search: what every site could be given, what that costs, and what keeps the budget."""
