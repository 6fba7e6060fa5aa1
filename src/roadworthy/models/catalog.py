"""Which models a name or tier means, opened once, and what they cost.

`calls.py` asks it before each paid call. Invariant: a model without a known price never answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roadworthy.agent import Model
from roadworthy.errors import ConfigurationError
from roadworthy.limits import Breaker, Price
from roadworthy.models.adapter import ProviderModel
from roadworthy.models.prices import PriceBook, Rates
from roadworthy.models.providers import MODEL_BREAKER, ProviderOptions, open_model

_MOST_OPENED = 512


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
        self._by_tenant = any(options.by_tenant for options in providers.values())
        self._opened: dict[tuple[str, str], ProviderModel] = {}  # by name and a tenant's own key
        self._checked: set[tuple[str, str]] = set()

    @property
    def prices(self) -> str:
        """The version of the price table, recorded with each run."""
        return self._book.version

    def chain(self, wanted: str | Model, tenant: str = "") -> tuple[Model, ...]:
        """The models to try in order, a tier's or the one named, with the tenant's credentials.

        Raises: ConfigurationError: unknown tier or provider, missing key or package.
        """
        if not isinstance(wanted, str):
            return (wanted,)
        if wanted in self._tiers:
            return tuple(m for name in self._tiers[wanted] for m in self.chain(name, tenant))
        if ":" not in wanted:
            tiers = ", ".join(sorted(self._tiers)) or "none are declared"
            raise ConfigurationError(
                f"Model {wanted!r} is neither 'provider:name' nor a tier of this runtime "
                f"({tiers}). Declare it: Runtime(..., tiers={{{wanted!r}: ['provider:name']}})."
            )
        return (self._model(wanted, tenant),)

    def _model(self, name: str, tenant: str) -> ProviderModel:
        options = self._options(name)
        own = ""
        if options is not None and options.by_tenant:
            options = options.of(tenant)
            own = str(options.api_key)
        model = self._opened.pop((name, own), None) or open_model(name, options)
        self._opened[name, own] = model  # the most recently used are last
        if len(self._opened) > _MOST_OPENED:
            # not closed, since a call may be using it: its connections go when it is collected
            del self._opened[next(iter(self._opened))]
        return model

    def check(self, wanted: str | Model, tenant: str = "") -> None:
        """That every model meant can be opened and has a price, before a run counts on it.

        Raises: ConfigurationError, PriceUnknown.
        """
        small = self.smallest(wanted)
        for model in (*self.chain(wanted, tenant), *self.chain(small, tenant)):
            self.rates(model)
        self._checked.add(self._place(wanted, tenant))

    def is_checked(self, wanted: str | Model, tenant: str = "") -> bool:
        """Whether `check` found nothing wrong with it before."""
        return self._place(wanted, tenant) in self._checked

    def _place(self, wanted: str | Model, tenant: str) -> tuple[str, str]:
        name = wanted if isinstance(wanted, str) else wanted.name
        return name, tenant if self._by_tenant else ""

    def circuit(self, model: Model, tenant: str) -> tuple[str, Breaker | None]:
        """The breaker of a model, by a name of its own where tenants have keys of their own."""
        options = self._options(model.name)
        whose = f"@{tenant}" if options is not None and options.by_tenant else ""
        breaker = MODEL_BREAKER if options is None else options.breaker
        return f"model:{model.name}{whose}", breaker

    def provider(self, model: Model, tenant: str) -> str:
        """The breaker of all models of a provider; "" for one with an address of its own."""
        if ":" not in model.name or model.name in self._providers:
            return ""
        options = self._options(model.name)
        whose = f"@{tenant}" if options is not None and options.by_tenant else ""
        return f"provider:{model.name.partition(':')[0]}{whose}"

    def _options(self, name: str) -> ProviderOptions | None:
        return self._providers.get(name) or self._providers.get(name.partition(":")[0])

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
