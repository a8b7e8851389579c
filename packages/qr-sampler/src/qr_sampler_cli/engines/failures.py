# SPDX-License-Identifier: Apache-2.0
"""What an engine raises, as an error of ours."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.failures import EngineError

__all__ = ["engine_failures"]


@contextlib.contextmanager
def engine_failures(doing: str, *, verbose: bool) -> Iterator[None]:
    """Turns whatever an engine raises while *doing* something into an :class:`EngineError`.

    Args:
        doing: What is being attempted.
        verbose: Whether the traceback is shown, too.

    Raises:
        EngineError: When the block raises anything but our own errors.
    """
    try:
        with warnings.catch_warnings():
            if not verbose:
                # Deprecations inside engines and torch do not concern our users.
                warnings.simplefilter("ignore")
            yield
    except QRSamplerError:
        raise
    # An engine can fail in any way; the type and the text of its error are passed on.
    except Exception as error:
        if verbose:
            traceback.print_exc()
        hint = "" if verbose else "; --verbose shows the engine's log and the traceback"
        raise EngineError(f"{doing}: {type(error).__name__}: {error}{hint}") from error
