"""Opening any provider's model by its name, such as "openai:gpt-5-mini".

`catalog.py` calls it. Invariant: what is missing (a key, a package, a provider) is said at once,
with the words to mend it.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import ipaddress
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roadworthy.errors import ConfigurationError
from roadworthy.limits import Breaker, Price
from roadworthy.models.adapter import ProviderModel

if TYPE_CHECKING:
    from pydantic_ai.models import Model as LibraryModel
    from pydantic_ai.providers import Provider

_EXTRAS = frozenset({"openai", "anthropic", "google", "mistral", "groq", "bedrock"})
_ENVIRONMENT = re.compile(r"`([A-Z][A-Z0-9_]{3,})`")
_PACKAGE = re.compile(r"pydantic-ai-slim\[([a-z0-9-]+)\]")
_BASE_URLS = ("base_url", "azure_endpoint", "api_base")
_FORWARDS = frozenset({"litellm"})  # runs here, but passes calls on to models that cost money
MODEL_BREAKER = Breaker(failures=10)


@dataclass(frozen=True, kw_only=True)
class ProviderOptions:
    """How to reach a provider, where its environment variables do not say it.

    base_url: another address of the same wire format; `openai-chat:` fits most local servers.
        A loopback or private address is free unless `price` says otherwise.
    http_client: an `httpx2.AsyncClient` of your own, yours to close. proxy: a proxy's URL.
    headers: sent with every request. price: dollars, instead of the price table.
    api_key: one key, or one of each tenant: a mapping by tenant, or a function of it that has the
        keys at hand (asked before every call, so that a new key is used at once). A tenant
        without a key is refused, never served with another's or with the environment's.
    breaker: when a model of it that keeps failing is left alone for a while (None: never).
        By default at ten failures of a minute: more than two calls make by themselves.
    """

    base_url: str | None = None
    api_key: str | Mapping[str, str] | Callable[[str], str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    http_client: Any = field(default=None, repr=False)
    proxy: str | None = None
    price: Price | None = None
    breaker: Breaker | None = MODEL_BREAKER

    @property
    def by_tenant(self) -> bool:
        """Whether each tenant has a key of its own."""
        return not (self.api_key is None or isinstance(self.api_key, str))

    def of(self, tenant: str) -> ProviderOptions:
        """The same with this tenant's key. Raises: ConfigurationError: it has none."""
        keys, found = self.api_key, None
        if keys is None or isinstance(keys, str):
            return self
        try:
            found = keys(tenant) if callable(keys) else keys.get(tenant)
            why = "there is none"
        except Exception as error:  # noqa: BLE001 - border: a user's function, perhaps with a key in its words
            why = f"the function failed ({type(error).__name__})"
        if not isinstance(found, str) or not found:
            raise ConfigurationError(
                f"No key for tenant {tenant!r}: {why}. Add it to ProviderOptions(api_key={{...}}), "
                "or let the function return it; runs without a tenant ask for tenant ''."
            )
        return replace(self, api_key=found)


def open_model(name: str, options: ProviderOptions | None = None) -> ProviderModel:
    """The model `provider:name`, ready to be asked.

    Raises: ConfigurationError: unknown provider, missing key or package, or an option that this
        provider does not take; the message says how to mend it.
    """
    options = options or ProviderOptions()
    provider, _, model = name.partition(":")
    if not model:
        raise ConfigurationError(f"{name!r} names no model. Write 'provider:name'.")
    source = _Source(name, options)
    opened = source.open()
    free = provider not in _FORWARDS and is_local(_address(opened))
    where = f"@{urlsplit(options.base_url).netloc}" if options.base_url else ""
    return ProviderModel(
        name=name,
        provider=provider + where,
        library=source.current,
        closing=source.close,
        price=options.price or (Price.free() if free else None),
        headers=options.headers,
        secret=options.api_key if isinstance(options.api_key, str) else "",
    )


def is_local(url: str) -> bool:
    """Whether an address is of this machine or a private network."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback


class forbid_real_models:  # noqa: N801 -- called like a function, used as a context too
    """From here on, no provider is asked: an attempt raises ConfigurationError.

    As a context manager it lasts for the block. Scripted and replayed models are not concerned.
    """

    def __init__(self) -> None:
        self._before = _gate.shut
        _gate.shut = True

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _gate.shut = self._before


@dataclass
class _Gate:
    shut: bool = False


_gate = _Gate()


class _Source:
    """Opens the library's model once for each event loop: connections belong to their loop."""

    def __init__(self, name: str, options: ProviderOptions) -> None:
        self._name, self._options = name, options
        self._spare: LibraryModel | None = None
        self._opened: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LibraryModel]
        self._opened = weakref.WeakKeyDictionary()

    def open(self) -> LibraryModel:
        """A fresh one, also kept for the first loop that asks. Raises: ConfigurationError."""
        self._spare = _open(self._name, self._options)
        return self._spare

    def current(self) -> LibraryModel:
        """The running loop's. Raises: ConfigurationError: real models are forbidden."""
        if _gate.shut:
            raise ConfigurationError(
                f"{self._name} was asked, but real models are forbidden here "
                "(roadworthy.testing.forbid_real_models). Use a ScriptedModel or a ReplayModel."
            )
        loop = asyncio.get_running_loop()
        found = self._opened.get(loop)
        if found is None:
            found = self._spare or _open(self._name, self._options)
            self._spare = None
            self._opened[loop] = found
        return found

    async def close(self) -> None:
        """Close the running loop's connections, those of a caller's own client excepted."""
        opened = self._opened.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            async with opened:  # the library closes what it owns on leaving
                pass


def _open(name: str, options: ProviderOptions) -> LibraryModel:
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    try:
        return infer_model(name, lambda provider: _provider(provider, options))
    except ImportError as error:
        raise _missing_package(name, error) from error
    except UserError as error:
        raise _missing_key(name, error) from error


def _provider(provider: str, options: ProviderOptions) -> Provider[Any]:
    from pydantic_ai.providers import infer_provider, infer_provider_class

    if provider.startswith("gateway/"):
        return infer_provider(provider)
    try:
        kind = infer_provider_class(provider)
    except ValueError as error:
        raise _unknown(provider) from error
    takes = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {"http_client": _client(provider, options), "api_key": options.api_key}
    if options.base_url is not None:
        place = next((place for place in _BASE_URLS if place in takes), "base_url")
        given[place] = options.base_url
        keyless = options.api_key is None and "api_key" in takes and provider != "bedrock"
        if keyless and is_local(options.base_url):
            given["api_key"] = "local"  # and never a real key from the environment
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in takes:
            raise ConfigurationError(
                f"Provider {provider!r} takes no {key}. For another server of the same wire "
                f"format use 'openai-chat:...' with ProviderOptions(base_url=...)."
            )
    opened = kind(**given)
    if provider == "bedrock":
        _once(opened.client)
    elif hasattr(opened.client, "max_retries"):
        opened.client.max_retries = 0  # asked per request, these SDKs copy the client each time
    return opened


def _once(client: Any) -> None:  # noqa: ANN401 -- made at run time by the SDK
    """Bedrock's SDK repeats failed calls by itself, whatever a request asks: take that off."""
    client.meta.events.unregister(
        "needs-retry.bedrock-runtime", unique_id="retry-config-bedrock-runtime"
    )


def _client(provider: str, options: ProviderOptions) -> Any:  # noqa: ANN401 -- two libraries
    """The HTTP client: the caller's, one for a proxy, or None for the library's own."""
    if options.http_client is not None or options.proxy is None:
        return options.http_client
    from pydantic_ai.models import create_async_httpx2_client

    if provider == "groq":  # its SDK still uses the older library
        httpx = importlib.import_module("httpx")
        return httpx.AsyncClient(proxy=options.proxy, timeout=600)
    import httpx2

    limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
    transport = httpx2.AsyncHTTPTransport(proxy=options.proxy, limits=limits)
    return create_async_httpx2_client(transport=transport)


def _address(model: LibraryModel) -> str:
    """Where the model is; empty where the library does not say."""
    from pydantic_ai.exceptions import UserError

    try:
        return model.base_url or ""
    except (AttributeError, UserError):
        return ""


def _unknown(provider: str) -> ConfigurationError:
    from pydantic_ai.models import known_model_names

    names = sorted({name.partition(":")[0] for name in known_model_names() if ":" in name})
    names += ["azure", "litellm", "ollama", "openai-chat", "openai-responses", "openrouter", "vllm"]
    near = difflib.get_close_matches(provider, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigurationError(
        f"Unknown provider {provider!r}.{hint} A server that speaks OpenAI's chat format is "
        "reached as 'openai-chat:...' with ProviderOptions(base_url=...)."
    )


def _missing_package(name: str, error: ImportError) -> ConfigurationError:
    provider = name.partition(":")[0]
    found = _PACKAGE.search(str(error))
    extra = found.group(1) if found else provider
    package = f"roadworthy[{extra}]" if extra in _EXTRAS else f"pydantic-ai-slim[{extra}]"
    return ConfigurationError(
        f"{name}: the package of provider {provider!r} is not installed. "
        f"Install it: pip install '{package}'"
    )


def _missing_key(name: str, error: Exception) -> ConfigurationError:
    provider = name.partition(":")[0]
    wanted = _ENVIRONMENT.findall(str(error))
    if not wanted:
        return ConfigurationError(f"{name}: {error}")
    return ConfigurationError(
        f"{name}: set the environment variable {' or '.join(dict.fromkeys(wanted))}, or give "
        f"Runtime(..., providers={{{provider!r}: ProviderOptions(api_key=...)}})."
    )
