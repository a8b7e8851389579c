# SPDX-License-Identifier: Apache-2.0
"""The filter function for Open WebUI, loaded and called the way that Open WebUI does it."""

from __future__ import annotations

import ast
import asyncio
import sys
import types
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qr_sampler import SamplingParameters, Settings
from qr_sampler.admission.overrides import (
    LABEL_KEYS,
    MAX_LABEL_LENGTH,
    SOURCE_KEY,
    SWITCH_KEYS,
    EngineFields,
    resolve_request,
)

FILTER = Path(__file__).resolve().parents[3] / "deployments/openwebui/qr_sampler_filter.py"

pytestmark = pytest.mark.skipif(
    not FILTER.exists(), reason="the deployments are in the repository, not in this archive"
)

OURS = {f"qr_{name}" for name in SamplingParameters.model_fields}
EVERY_KEY = OURS | {*LABEL_KEYS, *SWITCH_KEYS, SOURCE_KEY}
ENGINE_FIELDS = EngineFields(temperature=0.5, top_p=1.0, top_k=0, min_p=0.0)
BOUNDS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

CHAT = {"chat_id": "8f1c", "message_id": "e2aa"}


def load() -> types.ModuleType:
    """Returns the module, executed from its text; its name is known only meanwhile."""
    name = "function_qr_sampler"
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(FILTER.read_text("utf-8"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


@pytest.fixture
def module() -> types.ModuleType:
    return load()


@pytest.fixture
def function(module: types.ModuleType) -> Any:
    return module.Filter()


def inlet(function: Any, body: dict[str, Any], user: Any = None, **metadata: str) -> Any:
    """Returns what reaches vLLM in ``vllm_xargs``; a user's values arrive as a model."""
    known = {"id": "u1"} if user is None else {"id": "u1", "valves": function.UserValves(**user)}
    done = asyncio.run(function.inlet(body=body, __user__=known, __metadata__=metadata))
    assert done is body
    return body.get("vllm_xargs")


def test_every_key_of_a_request_has_a_field_and_no_other(module: types.ModuleType) -> None:
    assert {f"qr_{name}" for name in module.Sampling.model_fields} == EVERY_KEY
    assert set(module.Filter.UserValves.model_fields) == set(module.Sampling.model_fields)


def test_numbers_have_the_bounds_of_the_settings(module: types.ModuleType) -> None:
    settings = SamplingParameters.model_json_schema()["properties"]
    fields = module.Sampling.model_json_schema()["properties"]
    compared = 0
    for name, ours in settings.items():
        if ours["type"] == "boolean":
            assert fields[name]["enum"] == ["yes", "no"]
            continue
        (theirs,) = (kind for kind in fields[name]["anyOf"] if kind["type"] != "null")
        assert {key: theirs.get(key) for key in BOUNDS} == {key: ours.get(key) for key in BOUNDS}
        compared += "minimum" in ours or "exclusiveMinimum" in ours
    assert compared > 20


def test_labels_may_be_as_long_as_the_records_take(module: types.ModuleType) -> None:
    fields = module.Sampling.model_json_schema()["properties"]
    for key in LABEL_KEYS:
        text = fields[key.removeprefix("qr_")]["anyOf"][0]
        assert (text["minLength"], text["maxLength"]) == (1, MAX_LABEL_LENGTH)


@pytest.mark.parametrize(
    ("field", "group"),
    [
        ("temperature_strategy", "qr_sampler.temperature_strategies"),
        ("signal_amplifier_type", "qr_sampler.signal_amplifiers"),
    ],
)
def test_menus_offer_what_is_installed(module: types.ModuleType, field: str, group: str) -> None:
    menu = module.Sampling.model_json_schema()["properties"][field]["enum"]
    assert sorted(menu) == sorted(point.name for point in entry_points(group=group))


def test_file_needs_pydantic_and_the_standard_library_only() -> None:
    text = FILTER.read_text("utf-8")
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"pydantic", *sys.stdlib_module_names}
    # Open WebUI reads its head only behind a bare first line, and rewrites these imports.
    assert text.startswith('"""\ntitle: ')
    assert not any(f"from {name}" in text for name in ("utils", "apps", "main", "config"))


def test_nothing_set_and_no_chat_leaves_the_request_alone(function: Any) -> None:
    body = {"model": "tiny", "messages": [], "temperature": 0.5}
    assert inlet(function, body, {}) is None
    assert body == {"model": "tiny", "messages": [], "temperature": 0.5}
    assert asyncio.run(function.inlet(body={})) == {}


def test_request_is_named_after_chat_and_message(function: Any) -> None:
    assert inlet(function, {}, **CHAT) == {"qr_request_key": "8f1c/e2aa"}
    assert inlet(function, {}, chat_id="8f1c") == {"qr_request_key": "8f1c"}
    assert inlet(function, {}, {"request_key": "mine"}, **CHAT) == {"qr_request_key": "mine"}
    function.valves = function.Valves(name_requests=False)
    assert inlet(function, {}, **CHAT) is None


def test_the_request_comes_before_the_user_and_the_user_before_the_administrator(
    function: Any,
) -> None:
    function.valves = function.Valves(top_k=1, top_p=0.1, min_p=0.3)
    body = {"vllm_xargs": {"qr_top_k": 3, "other": "kept"}}
    assert inlet(function, body, {"top_k": 2, "top_p": 0.2}) == {
        "qr_top_k": 3,
        "qr_top_p": 0.2,
        "qr_min_p": 0.3,
        "other": "kept",
    }


def test_administrator_can_keep_users_out(function: Any) -> None:
    function.valves = function.Valves(top_k=1, users_may_change=False)
    assert inlet(function, {}, {"top_k": 2, "trial": "7"}) == {"qr_top_k": 1}


@pytest.mark.parametrize("key", ["qr_bypass", "QR_BYPASS", " qr_bypass", "qr-bypass", "qrbypass"])
def test_no_parameter_of_a_chat_gets_past_the_administrator(function: Any, key: str) -> None:
    function.valves = function.Valves(users_may_change=False)
    given = {key: 1, "qr_request_key": "another's", "other": "kept"}
    assert inlet(function, {"vllm_xargs": given}, **CHAT) == {
        "qr_request_key": "8f1c/e2aa",
        "other": "kept",
    }
    function.valves = function.Valves(users_may_change=True)
    assert inlet(function, {"vllm_xargs": given}, **CHAT) == given


def test_no_parameter_of_a_model_is_added_where_users_may_change_nothing(function: Any) -> None:
    function.valves = function.Valves(users_may_change=False, name_requests=False)
    # Open WebUI copies a model's parameter where the body has none of that name.
    assert inlet(function, {}) == {}


def test_controls_deliver_text_and_empty_text_is_unset(function: Any) -> None:
    user = {"fixed_temperature": "0.9", "top_k": "40", "truncate_first": "no", "trial": ""}
    assert inlet(function, {}, user) == {
        "qr_fixed_temperature": 0.9,
        "qr_top_k": 40,
        "qr_truncate_first": 0,
    }


@pytest.mark.parametrize(
    "bad",
    [{"top_p": 0.0}, {"top_k": -2}, {"fixed_temperature": 0.0}, {"bypass": "maybe"}, {"min_p": 2}],
)
def test_values_out_of_range_are_refused_where_they_are_typed(
    function: Any, bad: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        function.UserValves(**bad)


def test_field_of_another_shape_is_named(function: Any) -> None:
    with pytest.raises(ValueError, match=r"vllm_xargs=\['qr_top_k'\]: expected an object"):
        inlet(function, {"vllm_xargs": ["qr_top_k"]})


def test_every_key_is_understood_and_changes_what_it_names(function: Any) -> None:
    wishes: dict[str, Any] = {
        "temperature_strategy": "edt",
        "signal_amplifier_type": "exact_sum",
        "sample_count": 4096,
        "top_k": 7,
        "top_n_sigma": 2.0,
        "top_p": 0.25,
        "min_p": 0.125,
        "typical_p": 0.5,
        "truncate_first": "yes",
        "follow_request": "yes",
        "bypass": "yes",
        "entropy_source": "mock_uniform",
        **{name: f"label {name}" for name in ("request_key", "trial", "condition")},
    }
    defaults = SamplingParameters().model_dump()
    numbers = {name for name in SamplingParameters.model_fields if name not in wishes}
    # In every range, and nobody's default.
    wishes |= {name: defaults[name] * 0.99 + 0.0005 for name in numbers}
    keys = inlet(function, {}, wishes)
    assert keys.keys() == EVERY_KEY
    assert all(type(value) in (str, int, float) for value in keys.values())

    settings = Settings(_env_file=None, request_entropy_sources="mock_uniform")
    options = resolve_request(settings, keys, ENGINE_FIELDS)
    found = options.parameters.model_dump()
    assert {name for name in found if found[name] == defaults[name]} == set()
    assert found == {name: True if wishes[name] == "yes" else wishes[name] for name in found}
    assert options.left_to_engine
    assert options.source == "mock_uniform"
    assert (options.request_key, options.trial, options.condition) == (
        "label request_key",
        "label trial",
        "label condition",
    )
