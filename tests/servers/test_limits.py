"""Limits that requests share: tokens a minute, however many are sent at once."""

import asyncio

import pytest

from collabllm.servers.limits import TokenLimiter, most_tokens


def drive(monkeypatch, limiter, clock, requests, seconds):
    """Send requests of (reserved, taken) tokens at once, each `seconds` long; return end times."""
    real_sleep = asyncio.sleep

    async def sleep(duration):
        clock[0] += duration
        await real_sleep(0)

    monkeypatch.setattr("collabllm.servers.limits.asyncio.sleep", sleep)

    async def send(turn, most, taken, ends):
        reserved = await limiter.reserve(most, turn)
        started = clock[0]
        while clock[0] - started < seconds:
            await real_sleep(0)
            clock[0] += 0.001
        limiter.settle(reserved, taken)
        ends.append((clock[0], taken))

    async def all_at_once():
        turn, ends = asyncio.Lock(), []
        await asyncio.gather(*(send(turn, most, taken, ends) for most, taken in requests))
        return ends

    return asyncio.run(all_at_once())


def test_requests_at_once_keep_to_the_tokens_of_a_minute(monkeypatch):
    clock = [0.0]
    limiter = TokenLimiter(10_000, now=lambda: clock[0])

    ends = drive(monkeypatch, limiter, clock, [(1_000, 900)] * 200, seconds=0.5)

    assert len(ends) == 200
    for start, _ in ends:
        assert sum(taken for end, taken in ends if start <= end < start + 60) <= 10_000


def test_what_a_request_did_not_take_is_free_for_others(monkeypatch):
    clock = [0.0]
    limiter = TokenLimiter(10_000, now=lambda: clock[0])

    ends = drive(monkeypatch, limiter, clock, [(5_000, 100)] * 50, seconds=0.1)

    assert max(end for end, _ in ends) < 30


def test_a_request_above_the_limit_goes_alone(monkeypatch):
    clock = [0.0]
    limiter = TokenLimiter(100, now=lambda: clock[0])

    ends = drive(monkeypatch, limiter, clock, [(150, 150), (150, 150)], seconds=0.1)

    assert ends[1][0] - ends[0][0] >= 60


def test_without_a_limit_nothing_waits(monkeypatch):
    limiter = TokenLimiter(None)

    assert len(drive(monkeypatch, limiter, [0.0], [(10**9, 10**9)] * 5, seconds=0.0)) == 5


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"messages": [{"content": "x" * 400}], "max_tokens": 50}, 154),
        ({"messages": [{"content": ""}, {"content": "é" * 4}], "max_completion_tokens": 1}, 11),
        ({"messages": []}, 0),
    ],
)
def test_a_request_is_estimated_by_its_bytes_and_its_longest_reply(request_, expected):
    assert most_tokens(request_) == expected
