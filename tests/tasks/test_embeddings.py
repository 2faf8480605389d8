"""The sentence encoder: many callers at once, other encoders by name."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from collabllm.tasks import Fact
from collabllm.tasks.embeddings import (
    SentenceEncoder,
    bundled_folder,
    has_bundled_encoder,
    load_encoder,
)
from collabllm.tasks.matching import facts_asked_for
from collabllm.tasks.meaning import least_cosines

pytestmark = pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")


def test_callers_at_once_share_batches_and_each_text_is_encoded_once(monkeypatch):
    encoder = SentenceEncoder()
    batches = []
    encode = encoder._encode_batch
    monkeypatch.setattr(
        encoder, "_encode_batch", lambda texts: (batches.append(list(texts)), encode(texts))[1]
    )
    texts = [f"sentence number {idx}" for idx in range(30)]

    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda idx: encoder.encode([texts[idx], texts[0]]), range(30)))

    assert sorted(text for batch in batches for text in batch) == sorted(texts)
    assert len(batches) < 30
    again = load_encoder().encode(texts)
    assert np.abs(np.stack([pair[0] for pair in found]) - again).max() < 1e-3


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory):
    """An encoder of another shape, untrained, that calls everything near."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    AutoTokenizer.from_pretrained(str(bundled_folder())).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    return str(folder)


def test_an_encoder_is_read_as_its_folder_says(other_encoder):
    assert load_encoder(other_encoder)._takes_first
    assert not load_encoder()._takes_first


def test_another_encoder_gets_thresholds_of_its_own(other_encoder):
    whole, part = least_cosines(other_encoder)

    assert least_cosines() == (0.48, 0.55)
    assert 0.6 < whole <= part, "it calls everything near, so near must mean more"
    facts = (Fact("Budget", "900 euros."),)
    matcher = f"semantic:{other_encoder}"
    assert facts_asked_for(facts, ["Which colour has the roof?"], set(), matcher) == []
    named = "semantic:all-minilm-l6-v2"
    assert facts_asked_for(facts, ["What is your budget?"], set(), named) == list(facts)
