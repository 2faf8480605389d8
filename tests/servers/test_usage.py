"""Usage and cost: sums by role and server, prices from the kept list."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from collabllm.servers.prices import find_price, load_price_list
from collabllm.servers.usage import Usage, UsageLedger


def test_cost_adds_up_by_price():
    ledger = UsageLedger()
    ledger.add("user", "gpt-4o-mini", 1_000_000, 0)
    ledger.add("judge", "gpt-4o", 0, 100_000)
    ledger.add("assistant", "local", 9_999_999, 9_999_999)

    assert ledger.cost_usd == pytest.approx(0.15 + 1.0)
    assert ledger.cost_line() == "Cost: $1.1500, without local: no price is known (--prices)"
    assert UsageLedger().cost_line() == ""
    assert ledger.by_role()["assistant"].requests == 1


def test_usage_adds_up_by_server_and_from_many_threads():
    ledger = UsageLedger()
    with ThreadPoolExecutor(8) as threads:
        for idx in range(400):
            threads.submit(ledger.add, "user", "m", 2, 3, f"server {idx % 2}")

    assert ledger.by_server() == {
        "server 0": Usage(200, 400, 600),
        "server 1": Usage(200, 400, 600),
    }


def test_a_kill_parts_no_answer_from_its_request(tmp_path):
    ledger, who = UsageLedger(), ("user", "m", "http://a")
    ledger.start_journal(tmp_path / "journal.jsonl")
    ledger.count_sent(*who)
    ledger.count_sent(*who)
    ledger.count_answered(*who, 10, 2)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    found = []
    for number in range(len(lines) + 1):
        (tmp_path / "killed.jsonl").write_text("".join(lines[:number]))
        killed = UsageLedger()
        killed.restore_journal(tmp_path / "killed.jsonl")
        used = killed.by_role().get("user", Usage())
        found.append((used.requests, used.unanswered))

    assert found == [(0, 0), (0, 1), (0, 2), (1, 1)]


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4o-mini", (0.15, 0.6)),
        ("gpt-4o-mini-2024-07-18", (0.15, 0.6)),
        ("gpt-4.1-mini-2025-04-14", (0.4, 1.6)),
        ("gpt-4o-2024-05-13", (5.0, 15.0)),
        ("gpt-4o-2099-01-01", (2.5, 10.0)),
        ("ft:gpt-4o-mini-2024-07-18:me::abc", (0.3, 1.2)),
        ("smollm2-135m-instruct", None),
        ("gpt-4o-minute", None),
    ],
)
def test_prices_are_found_by_name_also_with_a_date(model, price):
    assert find_price(model) == price


def test_own_prices_win_also_for_dated_names():
    assert find_price("gpt-4o-2024-08-06", {"gpt-4o": (1, 2)}) == (1.0, 2.0)
    assert find_price("mine", {"mine": (0, 0)}) == (0.0, 0.0)


def test_the_price_list_names_its_source_and_date():
    price_list = load_price_list()

    assert "github.com/pydantic/genai-prices" in price_list["source"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", price_list["date"])
    assert len(price_list["models"]) > 300


def test_a_limit_needs_prices_and_no_limit_needs_none():
    UsageLedger().require_prices(["anything"])
    UsageLedger(1.0, {"mine": (0, 0)}).require_prices(["mine", "gpt-4o-2024-08-06"])

    with pytest.raises(ValueError, match=r"A limit of \$1 needs the price of mine"):
        UsageLedger(1.0).require_prices(["gpt-4o", "mine"])
