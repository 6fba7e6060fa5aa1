"""Opening models: what is missing is said with the words to mend it; our own servers are free."""

import subprocess
import sys

import pytest

from roadworthy.errors import ConfigurationError
from roadworthy.limits import Price
from roadworthy.messages import Message, ModelRequest
from roadworthy.models.providers import ProviderOptions, is_local, open_model
from roadworthy.testing import forbid_real_models


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY.*ProviderOptions\(api_key="):
        open_model("openai:gpt-5-mini")


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="'anthropic'"):
        open_model("antropic:claude-haiku-4-5")
    with pytest.raises(ConfigurationError, match="provider:name"):
        open_model("gpt-5")


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(ConfigurationError, match=r"pip install 'pydantic-ai-slim\[cohere\]'"):
        open_model("cohere:command-r", ProviderOptions(api_key="x"))


def test_an_option_that_a_provider_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="openai-chat"):
        open_model("deepseek:deepseek-chat", ProviderOptions(base_url="http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost:8000", True),
        ("http://192.168.1.4/v1", True),
        ("http://[::1]:80/", True),
        ("https://api.openai.com/v1", False),
        ("https://localhost.example.com", False),
        ("", False),
    ],
)
def test_which_addresses_are_local(url: str, *, local: bool) -> None:
    assert is_local(url) is local


def test_a_local_server_is_free_unless_it_has_a_price() -> None:
    here = "http://127.0.0.1:11434/v1"
    assert open_model("ollama:llama3", ProviderOptions(base_url=here)).price == Price.free()
    dear = Price(input=1, output=1)
    options = ProviderOptions(base_url=here, price=dear)
    assert open_model("openai-chat:own", options).price == dear
    forwards = ProviderOptions(base_url=here, api_key="x")
    assert open_model("litellm:gpt-5", forwards).price is None
    assert open_model("openai:gpt-5", ProviderOptions(api_key="x")).price is None


def test_options_do_not_show_their_secrets() -> None:
    assert "geheim" not in repr(ProviderOptions(api_key="geheim", headers={"x": "geheim"}))


async def test_real_models_can_be_forbidden() -> None:
    model = open_model("openai:gpt-5", ProviderOptions(api_key="x"))
    request = ModelRequest(instructions="", messages=[Message.user("Hi")])
    with forbid_real_models(), pytest.raises(ConfigurationError, match="forbidden"):
        await model.request(request)


def test_nothing_heavy_is_loaded_before_a_model_is_opened() -> None:
    code = (
        "import sys, roadworthy.testing, roadworthy.models.providers, roadworthy.models.prices;"
        "print([m for m in ('pydantic_ai', 'genai_prices', 'httpx2') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    assert found.stdout.strip() == "[]"
