"""The ledger: every paid call is reserved at its worst case before, settled at its truth after."""

from roadworthy.budget.accounts import Account, Amount, Bearer, accounts_of, bearer_of
from roadworthy.budget.ledger import Ask, Exhausted, Held, Ledger
from roadworthy.budget.rows import release_all, settle

__all__ = [
    "Account",
    "Amount",
    "Ask",
    "Bearer",
    "Exhausted",
    "Held",
    "Ledger",
    "accounts_of",
    "bearer_of",
    "release_all",
    "settle",
]
