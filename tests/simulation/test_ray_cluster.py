"""What of a Ray cluster each worker gets, and what is said where Ray is missing; without Ray."""

import sys

import pytest

from collabllm.errors import CollabLLMError, ServerError
from collabllm.simulation import simulate_chats
from collabllm.simulation.assistant.ray_cluster import divide
from collabllm.simulation.assistant.settings import AssistantSettings


def nodes(*resources):
    return [{"Alive": True, "Resources": each} for each in resources]


@pytest.mark.parametrize(
    ("resources", "asked", "number", "each"),
    [
        ([{"CPU": 8.0}], None, 1, {"num_cpus": 8}),
        ([{"CPU": 8.0}], 3, 3, {"num_cpus": 2}),
        ([{"CPU": 2.0}], 5, 5, {"num_cpus": 1}),
        ([{"CPU": 8.0}, {"CPU": 4.0}, {}], None, 2, {"num_cpus": 4}),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, 3, {"num_cpus": 4}),
        ([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}, {"GPU": 1.0}], None, 3, {"num_gpus": 1}),
        ([{"CPU": 8.0, "GPU": 2.0}], 5, 5, {"num_gpus": 1}),
    ],
)
def test_a_worker_gets_a_gpu_or_an_even_share_of_cpus(resources, asked, number, each):
    assert divide(nodes(*resources), asked) == (number, each)


def test_a_dead_node_gives_nothing():
    dead = {"Alive": False, "Resources": {"CPU": 4.0, "GPU": 4.0}}

    assert divide([dead, *nodes({"CPU": 2.0})], None) == (1, {"num_cpus": 2})
    with pytest.raises(ServerError, match="neither GPUs nor CPUs"):
        divide([dead], None)


def test_a_missing_ray_names_the_extra_before_a_model_loads(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(CollabLLMError, match=r"the extra collabllm\[ray\]: `uv sync --extra ray`"):
        simulate_chats(ray="auto", hf_model_path="none", output_dir=str(tmp_path / "out"))


def test_ray_is_for_local_models():
    assert AssistantSettings(ray="auto").assistant_kind == "ray"
    assert AssistantSettings(assistant="ray").assistant_kind == "ray"
    for served in ({"assistant": "vllm"}, {"assistant_model": "m"}, {"assistant": "local"}):
        with pytest.raises(ValueError, match="--ray spreads a local model; the assistant is"):
            AssistantSettings(ray="auto", **served)
