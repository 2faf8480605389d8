"""The policy in training as an assistant: borrowed for a while, and given back as it was."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.simulation.assistant.base import AssistantReply
from collabllm.simulation.assistant.engines.base import Engine
from collabllm.simulation.assistant.engines.batching import BatchingEngine
from collabllm.simulation.assistant.engines.cpu_attention import use_grouped_attention
from collabllm.simulation.assistant.engines.trainer_vllm import TrainerVLLMEngine
from collabllm.simulation.assistant.local import LocalAssistant


class LiveAssistant(LocalAssistant):
    """Answers with a model whose weights change; use it inside `borrow` only.

    Unless vLLM generates, batches are padded on every device: continuous batching keeps a cache of
    its own, which would outlive the weights.

    Args:
        model: In training; it is as it was whenever it is not borrowed.
        tokenizer: Its tokenizer.
        name: For transcripts.
        template_options: Arguments of the chat template.
        vllm: The trainer's `VLLMGeneration`, if that generates in place of the model.
        sync: With `vllm`: gives it the weights of this moment.
        sampling: Those of `LocalAssistant`: `max_new_tokens`, `temperature`, `top_p`, `top_k`,
            `max_context`.

    `num_generated` counts the tokens that it has written.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "policy",
        template_options: Mapping[str, Any] | None = None,
        vllm: Any = None,
        sync: Callable[[], None] = lambda: None,
        **sampling: Any,
    ) -> None:
        self._vllm, self._sync = vllm, sync
        with _as_it_was(model):
            super().__init__(name, model=model, tokenizer=tokenizer, batching="padded", **sampling)
            self._config = model.generation_config  # says how replies end, and nothing else
        self._template_options = dict(template_options or {})
        self.num_generated = 0

    def _start_engine(self, batching: str, sampling: dict[str, Any]) -> Engine:
        if self._vllm is None:
            return super()._start_engine(batching, sampling)
        return TrainerVLLMEngine(self._vllm, end_ids(self.model, self.tokenizer), self._sync)

    async def answer(self, *args: Any, **kwargs: Any) -> tuple[AssistantReply, list[int]]:
        """Do as `LocalAssistant` does, and count."""
        reply, ids = await super().answer(*args, **kwargs)
        self.num_generated += len(ids)
        return reply, ids

    @contextmanager
    def borrow(self) -> Iterator[None]:
        """Generate with the weights of this moment; wait at the end for what is under way."""
        engine = self._engine
        assert isinstance(engine, BatchingEngine)
        with _as_it_was(self.model):
            engine.forget()
            self.model.eval()
            use_grouped_attention(self.model)
            self.model.generation_config = self._config
            try:
                yield
            finally:
                engine.forget()


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Give a model its mode, attention and generation config back."""
    modes = {module: module.training for module in model.modules()}
    attention, config = model.config._attn_implementation, model.generation_config
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        model.generation_config = config
