"""Seeded sampling: tokens come as often as their probability says, and never a masked one."""

from collections import Counter

import pytest
import torch

from collabllm.simulation.assistant.engines.seeded_sampling import SeededSampling

SCORES = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05, 0.0]]))  # the last token is masked
DRAWS = 20_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05, 0.0]),
        ({"temperatures": [0.5]}, [0.685, 0.247, 0.062, 0.007, 0.0]),
        ({"top_k": 3}, [0.526, 0.316, 0.158, 0.0, 0.0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0.0, 0.0, 0.0]),
    ],
)
def test_tokens_come_with_their_probability(settings, expected):
    sampling = SeededSampling([3], **settings)

    counts = Counter(int(sampling(None, SCORES).argmax()) for _ in range(DRAWS))

    assert [counts[token] / DRAWS for token in range(5)] == pytest.approx(expected, abs=0.012)
    assert [counts[token] for token in range(5) if not expected[token]] == [0] * expected.count(0.0)


def test_the_highest_draw_takes_no_masked_token(monkeypatch):
    highest = 1 - 2**-24
    assert torch.tensor(highest) < 1
    monkeypatch.setattr("torch.rand", lambda *_, device, **__: torch.tensor([highest]).to(device))
    scores = torch.randn(500, 40, generator=torch.Generator().manual_seed(0))
    scores[:, 30:] = -torch.inf  # sums of 30 probabilities end above, at and below 1

    chosen = SeededSampling([0] * 500)(None, scores).argmax(-1)

    totals = scores.softmax(-1).cumsum(-1)[:, -1]
    assert (totals < 1).any()
    assert (totals > 1).any()
    assert set(chosen.tolist()) == {29}


def test_each_row_has_its_own_stream_and_the_scores_are_left_alone():
    wide = torch.zeros(2, 1000)
    both = SeededSampling([1, 2])(None, wide)
    swapped = SeededSampling([2, 1])(None, wide)

    assert torch.equal(both[0], swapped[1])
    assert torch.equal(both[1], swapped[0])
    assert not torch.equal(both[0], both[1])
    assert torch.equal(wide, torch.zeros(2, 1000))


def test_each_row_has_its_own_temperature_and_0_takes_the_likeliest():
    scores = SCORES.repeat(3, 1)
    sampling = SeededSampling([1, 2, 3], temperatures=[0.0, 1.0, 0.5])
    draws = [sampling(None, scores).argmax(-1).tolist() for _ in range(DRAWS // 4)]
    first, second, third = (Counter(tokens) for tokens in zip(*draws, strict=True))

    assert first == {0: len(draws)}
    assert second[0] / len(draws) == pytest.approx(0.5, abs=0.025)
    assert third[0] / len(draws) == pytest.approx(0.685, abs=0.025)


def test_rows_without_a_seed_follow_torchs_own_stream():
    wide = torch.zeros(1, 1000)
    torch.manual_seed(5)
    first, second = (SeededSampling([None])(None, wide) for _ in range(2))
    torch.manual_seed(5)
    again = SeededSampling([None])(None, wide)

    assert torch.equal(first, again)
    assert not torch.equal(first, second)
