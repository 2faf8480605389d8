"""The bundled model: converted once, repaired, safe for two at once; 4-bit and adapters."""

import json
import multiprocessing
from pathlib import Path

import pytest
from bitsandbytes.nn import Linear4bit

from collabllm import models


def convert_slowly(folder: Path) -> None:
    """Stand in for the conversion, which takes half a minute; counts its calls in a file."""
    import time

    with (folder.parent.parent / "calls").open("a") as calls:
        calls.write("x")
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    time.sleep(0.5)
    (folder / models._SIZES_FILE).write_text(json.dumps(models._sizes(folder)))


def resolve(cache: str) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    models._convert_gguf = convert_slowly
    models.resolve_model_path(models.BUNDLED_MODEL)


def test_two_processes_convert_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=resolve, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "collabllm/calls").read_text() == "x"


def test_a_half_written_folder_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "_convert_gguf", convert_slowly)
    folder = Path(models.resolve_model_path(models.BUNDLED_MODEL))
    (folder / "model.safetensors").write_text("wei")

    models.resolve_model_path(models.BUNDLED_MODEL)
    models.resolve_model_path(models.BUNDLED_MODEL)

    assert (folder / "model.safetensors").read_text() == "weights"
    assert (tmp_path / "collabllm/calls").read_text() == "xx"
    assert not list((tmp_path / "collabllm").glob("converting-*"))


@pytest.mark.slow
def test_the_bundled_model_answers_in_english():
    model = models.load_base_model(models.BUNDLED_MODEL)
    tokenizer = models.load_tokenizer(models.BUNDLED_MODEL)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids

    output = model.generate(ids, max_new_tokens=4, do_sample=False)

    assert "Paris" in tokenizer.decode(output[0])
    assert model.dtype == models.choose_dtype()


def test_4bit_layers_stay_trainable_on_the_cpu():
    model = models.load_base_model(models.BUNDLED_MODEL, use_4bit=True)

    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 30 * 7
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert layers[0].weight.quant_type == "nf4"
    assert layers[0].weight.quant_state.nested


def test_missing_folders_are_named():
    with pytest.raises(FileNotFoundError, match="./nope: there is no such model folder"):
        models.load_base_model("./nope")
    with pytest.raises(FileNotFoundError, match="/nope: there is no such model folder"):
        models.load_tokenizer("/nope")
