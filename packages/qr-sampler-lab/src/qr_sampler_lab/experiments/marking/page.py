# SPDX-License-Identifier: Apache-2.0
"""The page that marks are written on: one file, which loads nothing and is loaded by nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from qr_sampler.errors import ConfigError, shown

__all__ = ["MOST_BUTTONS", "Page", "page_with"]

MOST_BUTTONS: Final = 24
"""Most buttons."""

_LONGEST_LABEL: Final = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A page and what browsers may do for it."""

    html: bytes
    """The page, in UTF-8."""
    policy: str
    """Its Content-Security-Policy, which knows its style and its script by their digests."""


def page_with(buttons: Sequence[str], *, with_key: bool) -> Page:
    """Returns the page.

    Args:
        buttons: Texts of marks; each becomes a button, and never HTML.
        with_key: Whether there is a field for the key, which stays in the page's memory.

    Raises:
        ConfigError: When there are too many buttons, or a text is none.
    """
    template = files("qr_sampler_lab.experiments.marking").joinpath("page.html").read_text("utf-8")
    labels = _checked(buttons)
    html = Template(template).substitute(
        buttons="".join(f'<button type="button">{escape(label)}</button>\n' for label in labels),
        key_hidden="" if with_key else " hidden",
    )
    return Page(html.encode(), _policy_of(template))


def _checked(buttons: Sequence[str]) -> list[str]:
    if len(buttons) > MOST_BUTTONS:
        raise ConfigError(f"there are {len(buttons)} buttons; {MOST_BUTTONS} are the most")
    labels = [button.strip() for button in buttons]
    for label in labels:
        if not label or len(label) > _LONGEST_LABEL or not label.isprintable():
            raise ConfigError(
                f"--button {shown(label)}: expected 1 to {_LONGEST_LABEL} printable characters"
            )
    return labels


def _policy_of(template: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest_of('script', template)}'",
            f"style-src '{_digest_of('style', template)}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _digest_of(element: str, template: str) -> str:
    """Returns the digest of the content of the only such element, as policies write it."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", template, flags=re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
