# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a ``PROTOCOL.yaml`` to a protocol, and the plain YAML that it is written in."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from qr_sampler.errors import ConfigError, shown
from qr_sampler_lab.experiments.protocol.model import Protocol

__all__ = ["LARGEST_PROTOCOL", "parse_protocol", "plain_yaml", "read_bounded", "read_protocol"]

LARGEST_PROTOCOL: Final = 2**18
"""Most bytes of a PROTOCOL.yaml."""

_DEEPEST: Final = 16
"""Most levels of lists and mappings; a protocol has five."""

_MOST_PROBLEMS: Final = 20


def read_protocol(path: Path) -> Protocol:
    """Returns the protocol in a file.

    Raises:
        ConfigError: When it cannot be read, or is no protocol; names the key and the remedy.
    """
    return parse_protocol(read_bounded(path, LARGEST_PROTOCOL), str(path))


def parse_protocol(data: bytes, name: str = "PROTOCOL.yaml") -> Protocol:
    """Returns the protocol that *data* holds.

    Args:
        data: Plain YAML, as :func:`plain_yaml` takes it, in UTF-8.
        name: What errors call it.

    Raises:
        ConfigError: When it is no protocol.
    """
    try:
        # The rules of JSON: lists are tuples, and nothing else changes its type.
        text = json.dumps(plain_yaml(data, name), allow_nan=False)
        return Protocol.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{name}: {_problems(error)}") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name} holds more than texts, numbers and lists: {error}") from error


def plain_yaml(data: bytes, name: str) -> object:
    """Returns what a YAML document of texts, numbers, true, false, null, lists and mappings holds.

    Values are those of the core schema of YAML 1.2, so ``no`` and ``1:30`` are texts. Tags, anchors
    and aliases, and keys that occur twice are refused.

    Raises:
        ConfigError: When it is anything else, or too large.
    """
    if len(data) > LARGEST_PROTOCOL:
        raise ConfigError(f"{name} has more than {LARGEST_PROTOCOL:,} bytes; shorten it")
    try:
        loader = _PlainLoader(data.decode("utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name} is no plain YAML: {error}") from error


def read_bounded(path: Path, limit: int) -> bytes:
    """Returns the bytes of a regular file of at most *limit* bytes.

    Raises:
        ConfigError: When it is none, is larger, or cannot be read.
    """
    try:
        # Not to wait for whoever opens the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path} is no regular file")
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise ConfigError(f"{path} has more than {limit:,} bytes; shorten it")
    return data


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain YAML only."""

    _depth = 0

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not allowed", event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags are not allowed", event.start_mark)
        if self._depth >= _DEEPEST:
            # Recursion has no limit of its own where libraries have raised it.
            raise yaml.composer.ComposerError(None, None, "nested too deeply", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "keys are texts", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
        "-+.0123456789",
    ),
):
    _PlainLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if character == "\0" else character for character in _first],
    )


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    sentences = [_sentence(problem) for problem in problems[:_MOST_PROBLEMS]]
    more = len(problems) - len(sentences)
    return "; ".join(sentences) + (f"; and {more} more" if more else "")


def _sentence(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    rule = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" or not place:
        return f"{place}: {rule}" if place else rule
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key; docs/protocol.schema.json lists all"
    return f"{place}={shown(problem['input'])}: {rule}"
