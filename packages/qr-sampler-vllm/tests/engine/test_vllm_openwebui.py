# SPDX-License-Identifier: Apache-2.0
"""A real Open WebUI in front of a real vLLM: what its pages send, and what comes of it.

The interface runs with the environment of a profile's compose file. Replaced are the address of
vLLM and where data are kept; added is what keeps it from looking for models on a network.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

PROGRAM = os.environ.get("OPEN_WEBUI_PROGRAM")

yaml = pytest.importorskip("yaml", reason="comes with the vLLM environment")

ROOT = Path(__file__).resolve().parents[4]
FILTER = ROOT / "deployments" / "openwebui" / "qr_sampler_filter.py"
PROFILES = ("_template", "firefly-1", "timing", "urandom")
MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
WITHOUT_NETWORK = {
    "HF_HUB_OFFLINE": "1",
    "OFFLINE_MODE": "true",
    # Otherwise it loads a model for documents when it starts.
    "RAG_EMBEDDING_ENGINE": "openai",
}
WAIT_S = 300.0

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs a real Open WebUI: run `nox -s openwebui`"
)


def environment_of(profile: str) -> dict[str, str]:
    """Returns the environment of the interface in a compose file, every variable at its default."""
    text = (ROOT / "deployments" / profile / "docker-compose.yml").read_text("utf-8")
    service = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))["services"]["open-webui"]
    # Compose hands every value over as text.
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in service["environment"].items()
    }


LATEST_RECORD_S = 0.2
"""How long after its step the record of a token is written at the latest."""


class Vllm:
    """A running engine and its records."""

    def __init__(self, url: str, ledger: Path) -> None:
        self.address = f"{url}/v1"
        self._ledger = ledger

    def request_keys(self) -> set[str]:
        """Returns the request keys of all tokens so far, when their records have been written."""
        time.sleep(5 * LATEST_RECORD_S)
        lines = records_in(self._ledger)
        return {line["request_key"] for line in lines if line["kind"] == "token"}


class Browser:
    """Sends what the pages of Open WebUI send."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._token = ""

    def call(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self._address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def is_served(self) -> bool:
        try:
            return bool(self.call("/health")["status"])
        except OSError:
            return False

    def sign_up(self, name: str) -> None:
        """Makes an account and stays signed in; the first one is the administrator's."""
        account = {"name": name, "email": f"{name}@example.org", "password": "a long Passw0rd!"}
        self._token = self.call("/api/v1/auths/signup", account)["token"]

    def install_filter(self, **valves: Any) -> None:
        """Adds the filter, switches it on and makes it global, as its page says."""
        function = {
            "id": "qr_sampler",
            "name": "qr-sampler",
            "content": FILTER.read_text("utf-8"),
            "meta": {"description": ""},
        }
        self.call("/api/v1/functions/create", function)
        self.call("/api/v1/functions/id/qr_sampler/toggle", {})
        self.call("/api/v1/functions/id/qr_sampler/toggle/global", {})
        self.set_valves(**valves)

    def set_valves(self, **valves: Any) -> None:
        self.call("/api/v1/functions/id/qr_sampler/valves/update", valves)

    def ask(self, text: str, **params: Any) -> tuple[str, dict[str, Any]]:
        """Asks in a new chat and returns its id and the finished answer."""
        asked, answered = str(uuid.uuid4()), str(uuid.uuid4())
        message = {
            "id": asked,
            "parentId": None,
            "childrenIds": [],
            "role": "user",
            "content": text,
            "models": [MODEL],
            "timestamp": int(time.time()),
        }
        body = {
            "stream": True,
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "params": {"max_tokens": 8, **params},
            "features": {"voice": False, "image_generation": False, "web_search": False},
            "session_id": str(uuid.uuid4()),
            "parent_id": None,
            "id": answered,
            "user_message": message,
            "background_tasks": {
                "title_generation": True,
                "tags_generation": True,
                "follow_up_generation": True,
            },
        }
        chat = self.call("/api/chat/completions", body)["chat_id"]
        return chat, self._answer(chat, answered)

    def _answer(self, chat: str, message: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while True:
            history = self.call(f"/api/v1/chats/{chat}")["chat"]["history"]["messages"]
            answer: dict[str, Any] = history.get(message, {})
            if answer.get("done") or answer.get("error"):
                return answer
            assert time.monotonic() < deadline, history
            time.sleep(0.2)


@pytest.fixture(scope="module")
def vllm(start_openai_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Vllm:
    ledger = tmp_path_factory.mktemp("records")
    variables = {"QR_ENTROPY_SOURCE_TYPE": "system", "QR_LEDGER_DIR": str(ledger)}
    arguments = [f"--served-model-name={MODEL}", f"--chat-template={CHAT_TEMPLATE}"]
    return Vllm(start_openai_server(runner="v1", env=variables, arguments=arguments).url, ledger)


@pytest.fixture
def open_browser(
    vllm: Vllm,
    start_process: Callable[..., Any],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> Callable[..., Browser]:
    """Starts Open WebUI with an environment, and signs in as its administrator."""

    def start(environment: Mapping[str, str]) -> Browser:
        port = free_port()
        variables = {
            **os.environ,
            **environment,
            **WITHOUT_NETWORK,
            "OPENAI_API_BASE_URL": vllm.address,
            "DATA_DIR": str(tmp_path / "data"),
            "WEBUI_SECRET_KEY": "of the test",
        }
        command = [str(PROGRAM), "serve", "--host=127.0.0.1", f"--port={port}"]
        process = start_process(command, variables)
        browser = Browser(port)
        process.wait_until(browser.is_served)
        browser.sign_up("admin")
        assert MODEL in {model["id"] for model in browser.call("/api/models")["data"]}
        return browser

    return start


@pytest.mark.parametrize("profile", PROFILES)
def test_an_interface_of_a_profile_is_answered(
    profile: str, open_browser: Callable[..., Browser], vllm: Vllm
) -> None:
    browser = open_browser(environment_of(profile))
    browser.install_filter()
    before = vllm.request_keys()
    chat, answer = browser.ask("What is light?")
    assert not answer.get("error"), answer
    assert answer["content"]
    # Every token since then belongs to this chat: nothing was asked behind the user's back.
    assert {key.partition("/")[0] for key in vllm.request_keys() - before} == {chat}


def test_without_the_defaults_of_the_profiles_it_is_not(
    open_browser: Callable[..., Browser],
) -> None:
    environment = environment_of("urandom")
    for name in ("DEFAULT_MODEL_PARAMS", "DEFAULT_MODEL_METADATA"):
        del environment[name]
    _, answer = open_browser(environment).ask("What is light?")
    assert "tool choice" in json.dumps(answer["error"]), answer


def test_a_user_changes_nothing_that_the_administrator_keeps(
    open_browser: Callable[..., Browser], vllm: Vllm
) -> None:
    browser = open_browser(environment_of("urandom"))
    browser.install_filter(users_may_change=True)
    bypass = {"vllm_xargs": '{"qr_bypass": 1}'}
    chat, answer = browser.ask("What is light?", custom_params=bypass)
    assert not answer.get("error"), answer
    assert not [key for key in vllm.request_keys() if key.startswith(chat)]

    browser.set_valves(users_may_change=False)
    chat, answer = browser.ask("What is light?", custom_params=bypass)
    assert not answer.get("error"), answer
    assert [key for key in vllm.request_keys() if key.startswith(chat)]
