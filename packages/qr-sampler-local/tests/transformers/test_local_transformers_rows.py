# SPDX-License-Identifier: Apache-2.0
"""Rows of a batch end at different times, for all the reasons that Transformers knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qr_sampler import ConfigError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

END_TOKEN = 0
MANY_ENDS = list(range(0, 2048, 6))
"""A sixth of all tokens, so that rows end soon and at different times."""


def cut(rows: list[list[int]], ends: list[int]) -> list[list[int]]:
    """Returns each row up to its first end token; behind that there is padding."""
    texts = []
    for row in rows:
        length = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
        assert set(row[length:]) <= {END_TOKEN}
        texts.append(row[:length])
    return texts


def test_rows_end_with_one_of_several_end_tokens(run: Any, prompts: Any) -> None:
    own = run()
    ids, mask = prompts(3, 7, 5, 4)
    output = own.generate(ids, attention_mask=mask, max_new_tokens=24, eos_token_id=MANY_ENDS)
    texts = cut(output[:, ids.shape[1] :].tolist(), MANY_ENDS)
    assert len({len(text) for text in texts}) > 1, "the rows end at the same time"
    own.check(texts)
    assert own.kind("discard") == []
    assert [line["prompt_tokens"] for line in own.sequences()] == [3, 7, 5, 4]


def test_stop_strings_end_rows(run: Any, prompts: Any, tokenizer: Any) -> None:
    own = run()
    ids, mask = prompts(3, 3, 3, 3)
    letters = ["a", "e", "i"]
    output = own.generate(
        ids, attention_mask=mask, max_new_tokens=12, stop_strings=letters, tokenizer=tokenizer
    )
    texts = own.texts()
    for row, text in zip(output[:, 3:].tolist(), texts, strict=True):
        assert row[: len(text)] == text
        assert set(row[len(text) :]) <= {END_TOKEN}
        pieces = [tokenizer.decode(token) for token in text]
        assert not any(set(piece) & set(letters) for piece in pieces[:-1])
    assert any(len(text) < 12 for text in texts), "no stop string was met"
    own.check(texts)
    assert own.kind("discard") == []


def test_stop_strings_need_the_tokenizer(run: Any, prompts: Any) -> None:
    with pytest.raises(ConfigError, match="stop_strings='x': pass tokenizer="):
        run().generate(prompts(3)[0], max_new_tokens=2, stop_strings="x")


class FirstRows(transformers.StoppingCriteria):
    """Ends the first row after two tokens, the next one after three, and so on."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        count = input_ids.shape[1] - self._length
        return torch.arange(input_ids.shape[0]) + 2 == count


def test_criteria_of_the_user_end_rows(run: Any, prompts: Any) -> None:
    own = run()
    ids, mask = prompts(4, 4, 4)
    output = own.generate(
        ids, attention_mask=mask, max_new_tokens=9, stopping_criteria=[FirstRows(4)]
    )
    assert output.shape[1] == 4 + 4
    texts = [row[: 2 + place] for place, row in enumerate(output[:, 4:].tolist())]
    own.check(texts)
    assert own.kind("discard") == []
    assert {line["reason"] for line in own.kind("end")} == {"stop"}


def test_without_an_end_token_rows_go_on_until_the_last_one_ends(run: Any, prompts: Any) -> None:
    """Transformers does not pad rows then: their further tokens are in its output."""
    own = run()
    ids, mask = prompts(4, 4, 4)
    config = transformers.GenerationConfig(max_new_tokens=9)
    model = own.model
    ended = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    try:
        output = own.sampler.generate(
            ids,
            attention_mask=mask,
            generation_config=config,
            options=own.named(3),
            stopping_criteria=[FirstRows(4)],
        )
    finally:
        model.generation_config.eos_token_id = ended
    assert output.shape[1] == 4 + 4
    own.check(output[:, 4:].tolist())


def test_time_runs_out(run: Any, prompts: Any) -> None:
    own = run()
    output = own.generate(prompts(3)[0], max_new_tokens=50, max_time=1e-6)
    assert output.shape[1] == 3 + 1
    own.check(output[:, 3:].tolist())


def test_rows_have_limits_of_their_own(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(3, 3, 3)
    output = own.generate(ids, max_new_tokens=9, max_tokens=[1, 6, 3])
    assert output.shape[1] == 3 + 6
    own.check([row[:count] for row, count in zip(output[:, 3:].tolist(), (1, 6, 3), strict=True)])
    assert [line["stop"]["max_tokens"] for line in own.sequences()] == [1, 6, 3]


@pytest.mark.parametrize("limits", [[1, 2], [1, 2, 0]])
def test_limits_that_do_not_fit_are_refused(run: Any, prompts: Any, limits: list[int]) -> None:
    own = run()
    with pytest.raises(ConfigError, match=r"max_tokens=.*for each of the 3 rows"):
        own.generate(prompts(3, 3, 3)[0], max_new_tokens=9, max_tokens=limits)
    assert own.source.bytes_drawn == 0


def test_several_texts_of_a_prompt_share_its_options(run: Any, prompts: Any) -> None:
    own = run()
    ids, mask = prompts(3, 5)
    output = own.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=3,
        num_return_sequences=2,
        options=[{"request_key": "one", "top_k": 1}, {"qr_request_key": "two"}],
        qr_trial="t",
    )
    assert output.shape == (4, 5 + 3)
    own.check(output[:, 5:].tolist())
    sequences = own.sequences()
    assert [line["request_key"] for line in sequences] == ["one", "one", "two", "two"]
    assert {line["trial"] for line in sequences} == {"t"}
    ranks: dict[str, set[int]] = {line["request_key"]: set() for line in sequences}
    for line in own.kind("token"):
        ranks[line["request_key"]].add(line["rank"])
    assert ranks["one"] == {0}
    assert ranks["two"] != {0}


def test_options_that_do_not_fit_are_refused(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(3, 3)
    with pytest.raises(ConfigError, match="1 mappings for 2 prompts"):
        own.generate(ids, max_new_tokens=2, options=[{}])
    with pytest.raises(ConfigError, match="expected a mapping"):
        own.generate(ids, max_new_tokens=2, options=["top_p", "top_k"])
    with pytest.raises(ConfigError, match="qr_top_p=2"):
        own.generate(ids, max_new_tokens=2, options=[{}, {"qr_top_p": 2}])
    assert own.source.bytes_drawn == 0
    own.check([])


def test_a_row_is_given_up_while_the_others_go_on(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(3, 3)

    def after_step(batch: Any) -> None:
        if len(batch.sequences[0].tokens) == 2:
            batch.abort(0)

    output = own.generate(ids, max_new_tokens=5, after_step=after_step)
    own.check([output[0, 3:5].tolist(), output[1, 3:].tolist()])
    assert sorted(line["reason"] for line in own.kind("end")) == ["departed", "stop"]


@pytest.fixture
def forced(run: Callable[..., Any], prompts: Any) -> Any:
    """A run whose source has failed after three draws."""
    own = run(fallback_mode="end_request")
    own.source.fail_after = 3
    own.output = own.generate(prompts(3, 3)[0], max_new_tokens=8, eos_token_id=END_TOKEN)
    return own


def test_texts_end_when_the_source_fails(forced: Any) -> None:
    assert forced.output.shape[1] == 3 + 4
    assert forced.output[:, -1].tolist() == [END_TOKEN] * 2
    forced.check(forced.output[:, 3:].tolist())
    assert len(forced.kind("forced")) == 2


class Sixth(transformers.StoppingCriteria):
    """Ends rows with the sixth token, which its attribute does not tell."""

    def __init__(self) -> None:
        self.eos_token_id = 5

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= 6)


def test_a_criterion_of_the_user_has_whatever_attributes(run: Any, prompts: Any) -> None:
    own = run()
    output = own.generate(prompts(3)[0], max_new_tokens=9, stopping_criteria=[Sixth()])
    assert output.shape[1] == 3 + 3
    own.check(output[:, 3:].tolist())


@pytest.mark.parametrize("ends", [-1, [-1, 2047]])
def test_a_negative_end_token_ends_nothing(run: Any, prompts: Any, ends: Any) -> None:
    own = run()
    output = own.generate(prompts(3)[0], max_new_tokens=3, eos_token_id=ends)
    own.check(output[:, 3:].tolist())


def test_a_row_without_entropy_gets_no_token_of_the_engine(
    run: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an end token it goes on as long as the others: with one token."""
    own = run(fallback_mode="end_request", request_entropy_sources="system")
    own.source.fail_after = 2
    monkeypatch.setattr(own.model.generation_config, "eos_token_id", None)
    options = [{"request_key": "1"}, {"request_key": "2", "entropy_source": "system"}]
    output = own.sampler.generate(prompts(3, 3)[0], max_new_tokens=6, options=options)
    assert output.shape[1] == 3 + 6
    assert output[0, 5:].tolist() == [0] * 4
    assert own.texts() == [output[0, 3:6].tolist(), output[1, 3:].tolist()]
