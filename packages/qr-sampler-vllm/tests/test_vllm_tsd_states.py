# SPDX-License-Identifier: Apache-2.0
"""What proposers remember of sequences, whatever vLLM does with them in between."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_vllm.tsd.proposer_states import ProposerStates


class Remembering:
    """A proposer whose state is the text, and which counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    def start(self, tokens: Sequence[int]) -> tuple[int, ...]:
        self.told += len(tokens)
        return tuple(tokens)

    def advance(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        self.told += 1
        return (*state, token)


def after(states: ProposerStates, name: str, tokens: list[int]) -> tuple[int, ...]:
    state: tuple[int, ...] = states.after(name, len(tokens), lambda begin: tokens[begin:])
    return state


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.integers(0, 3), st.lists(st.integers(0, 2), max_size=3)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_state_is_that_of_the_text(moves: list[tuple[str, int, list[int]]]) -> None:
    """Tokens are added, and now and then some are taken back and others follow."""
    proposer = Remembering()
    states, texts = ProposerStates(proposer), {"a": [7, 8], "b": [9]}
    for name, back, new in moves:
        kept = max(len(texts[name]) - back, 1)
        # The same text, but that its last token tells whether it was another one before.
        changed = [*texts[name][:kept], *new]
        known = after(states, name, texts[name])
        assert known == tuple(texts[name])
        texts[name] = changed if len(changed) >= len(known) and not back else texts[name] + new
        assert after(states, name, texts[name]) == tuple(texts[name])


def test_only_what_is_new_is_read_and_told() -> None:
    proposer = Remembering()
    states = ProposerStates(proposer)
    after(states, "a", [1, 2, 3])
    after(states, "a", [1, 2, 3, 4])
    assert proposer.told == 4
    # Taken back, or another text: from the beginning.
    assert after(states, "a", [1, 2]) == (1, 2)
    assert after(states, "a", [1, 5, 6]) == (1, 5, 6)
    assert proposer.told == 4 + 2 + 3


def test_what_has_ended_is_forgotten() -> None:
    proposer = Remembering()
    states = ProposerStates(proposer)
    for name in "abc":
        after(states, name, [1, 2])
    states.forget(["a", "unknown"])
    states.forget_all_but(["a", "b"])
    proposer.told = 0
    for name in "abc":
        after(states, name, [1, 2])
    assert proposer.told == 4
