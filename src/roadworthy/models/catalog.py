"""Which models a name or tier means, opened once, and what they cost.

`calls.py` asks it before each paid call. Invariant: a model without a known price never answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roadworthy.agent import Model
from roadworthy.errors import ConfigurationError
from roadworthy.limits import Price
from roadworthy.models.adapter import ProviderModel
from roadworthy.models.prices import PriceBook, Rates
from roadworthy.models.providers import ProviderOptions, open_model


class Catalog:
    """Tiers and providers of one runtime."""

    def __init__(
        self,
        tiers: Mapping[str, Sequence[str | Model]],
        prices: Mapping[str, Price],
        providers: Mapping[str, ProviderOptions],
    ) -> None:
        self._tiers = dict(tiers)
        self._book = PriceBook(prices)
        self._providers = dict(providers)
        self._opened: dict[str, ProviderModel] = {}
        self._checked: set[str] = set()

    @property
    def prices(self) -> str:
        """The version of the price table, recorded with each run."""
        return self._book.version

    def chain(self, wanted: str | Model) -> tuple[Model, ...]:
        """The models to try in order: a tier's, or the one named.

        Raises: ConfigurationError: unknown tier or provider, missing key or package.
        """
        if not isinstance(wanted, str):
            return (wanted,)
        if wanted in self._tiers:
            return tuple(model for name in self._tiers[wanted] for model in self.chain(name))
        if ":" not in wanted:
            tiers = ", ".join(sorted(self._tiers)) or "none are declared"
            raise ConfigurationError(
                f"Model {wanted!r} is neither 'provider:name' nor a tier of this runtime "
                f"({tiers}). Declare it: Runtime(..., tiers={{{wanted!r}: ['provider:name']}})."
            )
        if wanted not in self._opened:
            provider = wanted.partition(":")[0]
            options = self._providers.get(wanted) or self._providers.get(provider)
            self._opened[wanted] = open_model(wanted, options)
        return (self._opened[wanted],)

    def check(self, wanted: str | Model) -> None:
        """That every model meant can be opened and has a price, before a run counts on it.

        Raises: ConfigurationError, PriceUnknown.
        """
        for model in (*self.chain(wanted), *self.chain(self.smallest(wanted))):
            self.rates(model)
        self._checked.add(_name(wanted))

    def is_checked(self, wanted: str | Model) -> bool:
        """Whether `check` found nothing wrong with it before."""
        return _name(wanted) in self._checked

    async def close(self) -> None:
        """Close the connections of this event loop."""
        for model in self._opened.values():
            await model.close()

    def rates(self, model: Model) -> Rates:
        """What the model costs. Raises: PriceUnknown."""
        return self._book.rates(model.name, model.price)

    def smallest(self, wanted: str | Model) -> str | Model:
        """The model for closing answers: the tier `small` where there is one."""
        return "small" if "small" in self._tiers else wanted


def _name(wanted: str | Model) -> str:
    return wanted if isinstance(wanted, str) else wanted.name
