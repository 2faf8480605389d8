"""What models behind servers cost: a price list with its source and date, in `prices.json`.

To bring the list up to date from the package genai-prices, and show what changed:

uv run --with genai-prices python -m collabllm.servers.prices && git diff collabllm/servers
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

Price = tuple[float, float]
"""US dollars a million tokens: prompt, completion."""

# Companies that serve their own models, so that a model's name says who is paid.
_PROVIDERS = (
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "mistral",
    "moonshotai",
    "openai",
    "x-ai",
)
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|latest)$")


@lru_cache(maxsize=1)
def load_price_list() -> dict[str, Any]:
    """Read the list: `source`, `date`, and `models` with a price each."""
    text = files("collabllm.servers").joinpath("prices.json").read_text(encoding="utf-8")
    price_list: dict[str, Any] = json.loads(text)
    return price_list


def find_price(model: str, own: Mapping[str, Price] | None = None) -> Price | None:
    """Return the price of a model, or None where there is none.

    Args:
        model: Also with a date (`gpt-4o-2024-08-06`), or fine-tuned (`ft:gpt-4o-mini-…:org::id`).
        own: Prices that win over the list.
    """
    fine_tuned = re.match(r"ft:([^:]+):", model)
    names = [model, _DATE.sub("", model)]
    if fine_tuned:
        names.append(f"ft:{_DATE.sub('', fine_tuned.group(1))}")
    for prices in (own or {}, load_price_list()["models"]):
        for name in names:
            if name in prices:
                prompt, completion = prices[name]
                return float(prompt), float(completion)
    return None


def name_unpriced(models: Iterable[str]) -> str:
    """Say, after a cost, which models it leaves out; empty where it leaves out none."""
    names = ", ".join(sorted(models))
    return f", without {names}: no price is known (--prices)" if names else ""


def _write_price_list() -> None:
    """Write the list anew from the installed package genai-prices."""
    import datetime
    from importlib.metadata import version
    from pathlib import Path

    from genai_prices.data import providers  # type: ignore[import-not-found]

    today = datetime.datetime.now(datetime.UTC)
    models: dict[str, Price] = {}
    for provider in (p for p in providers if p.id in _PROVIDERS):
        for model in provider.models:
            price = model.get_prices(today)
            prompt, completion = (
                getattr(amount, "base", amount) for amount in (price.input_mtok, price.output_mtok)
            )
            if prompt is None or completion is None:
                continue
            clauses = getattr(model.match, "or_", [model.match])
            names = [clause.equals for clause in clauses if hasattr(clause, "equals")]
            for name in [model.id, *names]:
                models.setdefault(name, (float(prompt), float(completion)))
    content = {
        "source": f"genai-prices {version('genai-prices')} (MIT), https://github.com/pydantic/genai-prices",
        "date": today.date().isoformat(),
        "unit": "US dollars a million tokens: prompt, completion; without discounts",
        "models": dict(sorted(models.items())),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2]", text)
    Path(__file__).with_name("prices.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_price_list()
