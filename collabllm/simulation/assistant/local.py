"""An assistant on this machine: any Hugging Face model, many conversations in one batch."""

import logging
from collections.abc import Sequence
from typing import Any

from collabllm.data_processing.tokenization import render_chat
from collabllm.errors import ContextFullError
from collabllm.hub import find_base_revision
from collabllm.messages import Message, merge_consecutive
from collabllm.models import choose_dtype, load_adapter, load_base_model, load_tokenizer
from collabllm.servers.reasoning import split_reasoning
from collabllm.simulation.assistant.base import Assistant, AssistantReply, OnReply
from collabllm.simulation.assistant.engines.base import Engine, keep_special_ids_only
from collabllm.simulation.assistant.engines.continuous import ContinuousEngine
from collabllm.simulation.assistant.engines.padded import PaddedEngine

logger = logging.getLogger(__name__)

_TAIL_TOKENS = 8


class LocalAssistant(Assistant):
    """Generates with a local model; concurrent callers share forward passes and the prefix cache.

    Args:
        model_path: Hub id, local folder, or `smollm2-135m-instruct` for the bundled model.
        lora_path: A LoRA adapter to put on it, in the revision that the adapter names.
        use_4bit: Load the model in NF4.
        device_map: As in transformers; `auto` is the GPU of this process, or the CPU.
        max_new_tokens: Most tokens of a reply.
        temperature: Sampling temperature.
        do_sample: Sample, or take the likeliest token each time. In float32, greedy replies are
            the same alone as in a batch, and so are sampled ones of one seed in padded batches; in
            bf16 most are. Continuous batching has one random stream for all and does not honour
            seeds.
        top_p: Sample from the likeliest tokens with this much probability.
        top_k: Number of likeliest tokens to sample from, as many as in transformers by default; 0
            is all of them.
        no_repeat_ngram_size: Never write a run of this many tokens that it wrote before in the
            conversation; 0 lets it. What the user said it may take up. Needs padded batches.
        batching: `continuous` (transformers' continuous batching), `padded` (padded batches with a
            reused cache), or `auto`: continuous on a GPU where the model supports it, else padded,
            which is faster on a CPU.
        max_context: Most tokens of prompt and reply; the model's own context by default.
        memory_share: Continuous batching on a GPU: share of the memory that is free after loading
            for keys and values; less than transformers' 0.8 or 0.9 where another model or a
            trainer has to fit.
        own_temperatures: Continuous batching: let a call choose its temperature, for which every
            step sorts the vocabulary; padded batches always let it.
        dtype: Type of the weights: `float32`, `bfloat16`, `float16`, or `auto` for what this
            machine computes fastest in.
        enable_thinking: Switch a hybrid model's thoughts on or off, by its chat template.
        reasoning_effort: For chat templates that take it: `low`, `medium`, `high`.
        model: A model to use instead of loading `model_path`; needs `tokenizer`.
        tokenizer: Its tokenizer.

    The settings given here are all that counts for sampling: the model's own generation config
    says only which tokens end a reply.

    Raises:
        FileNotFoundError: If a local path is not there.
        ValueError: If the tokenizer has no chat template.
    """

    def __init__(
        self,
        model_path: str,
        lora_path: str | None = None,
        use_4bit: bool = False,
        device_map: str | dict[str, int | str] = "auto",
        max_new_tokens: int = 1024,
        temperature: float = 0.7,
        do_sample: bool = True,
        *,
        top_p: float = 1.0,
        top_k: int = 50,
        no_repeat_ngram_size: int = 0,
        batching: str = "auto",
        max_context: int | None = None,
        memory_share: float | None = None,
        own_temperatures: bool = False,
        dtype: str = "auto",
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        model: Any = None,
        tokenizer: Any = None,
    ) -> None:
        if batching not in ("auto", "continuous", "padded"):
            raise ValueError(f"batching must be auto, continuous or padded, got {batching!r}.")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}.")
        if no_repeat_ngram_size and batching == "continuous":
            raise ValueError("no_repeat_ngram_size needs padded batches, got batching=continuous.")
        self.name = lora_path or model_path
        self.max_new_tokens = max_new_tokens
        revision = find_base_revision(lora_path, model_path)
        self.tokenizer: Any = tokenizer or load_tokenizer(
            model_path, adapter=lora_path, revision=revision
        )
        if not self.tokenizer.chat_template:
            raise ValueError(f"{model_path} has no chat template; use a chat (instruct) model.")
        if model is None:
            placed = None if device_map == "auto" else device_map
            import torch

            model = load_base_model(
                model_path,
                use_4bit=use_4bit,
                device_map=placed,
                dtype=choose_dtype() if dtype == "auto" else getattr(torch, dtype),
                revision=revision,
            )
            if lora_path:
                model = load_adapter(model, lora_path)
        self.model: Any = model.eval()
        self._own_config = keep_special_ids_only(model)
        given = {"enable_thinking": enable_thinking, "reasoning_effort": reasoning_effort}
        self._template_options = {k: v for k, v in given.items() if v is not None}
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", 4096)
        self.max_context = min(max_context or context, context)
        sampling: dict[str, Any] = {"do_sample": do_sample}
        if do_sample:
            sampling |= {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        self._continuous: dict[str, Any] = {
            "memory_share": memory_share,
            "own_temperatures": own_temperatures,
        }
        self._no_repeat = no_repeat_ngram_size
        if no_repeat_ngram_size:
            batching, sampling["no_repeat_ngram_size"] = "padded", no_repeat_ngram_size
        self._engine = self._start_engine(batching, sampling)

    def _start_engine(self, batching: str, sampling: dict[str, Any]) -> Engine:
        on_gpu = self.model.device.type != "cpu"
        if batching == "continuous" or (batching == "auto" and on_gpu):
            try:
                return ContinuousEngine(
                    self.model,
                    self.tokenizer,
                    sampling,
                    self.max_context,
                    self.max_new_tokens,
                    **self._continuous,
                )
            except RuntimeError as error:
                if batching == "continuous":
                    raise
                logger.warning(
                    "%s does not support continuous batching (%s): using padded batches.",
                    self.name,
                    error,
                )
        return PaddedEngine(self.model, self.tokenizer, sampling)

    def warmup(self) -> None:
        """Do what the first reply would have to wait for, such as capturing a GPU's graphs."""
        self._engine.warmup()
        self.generate([{"role": "user", "content": "Hello"}])

    async def agenerate(
        self,
        messages: Sequence[Message],
        *,
        seed: int | None = None,
        temperature: float | None = None,
    ) -> AssistantReply:
        """Generate one reply, in a batch with all others that are under way.

        Args:
            messages: The conversation, unchanged by the call.
            seed: For sampling, in padded batches.
            temperature: In place of the assistant's own.
        """
        reply, _ = await self.answer(
            self.tokenize(messages), seed, temperature=temperature, earlier=self._earlier(messages)
        )
        return reply

    async def astream(
        self, messages: Sequence[Message], on_reply: OnReply, *, seed: int | None = None
    ) -> AssistantReply:
        """Do as `agenerate` does, and show the reply token by token."""
        reply, _ = await self.answer(
            self.tokenize(messages), seed, on_reply, earlier=self._earlier(messages)
        )
        return reply

    def _earlier(self, messages: Sequence[Message]) -> list[list[int]]:
        """Tokenize its earlier replies, where it must not repeat them."""
        if not self._no_repeat:
            return []
        own = [message["content"] for message in messages if message["role"] == "assistant"]
        return [self.tokenizer(text, add_special_tokens=False).input_ids for text in own]

    async def answer(
        self,
        prompt_ids: list[int],
        seed: int | None = None,
        on_reply: OnReply | None = None,
        temperature: float | None = None,
        earlier: Sequence[list[int]] = (),
    ) -> tuple[AssistantReply, list[int]]:
        """Do as `agenerate` does after exact token ids; return the reply's own ids, too.

        Args:
            prompt_ids: What to answer.
            seed: For sampling.
            on_reply: Called with the reply so far, token by token.
            temperature: In place of the assistant's own.
            earlier: Ids of its earlier replies, for `no_repeat_ngram_size`.

        Raises:
            ContextFullError: If no token fits after the prompt.
        """
        room = self.max_context - len(prompt_ids)
        if room < 1:
            raise ContextFullError(
                f"The conversation has {len(prompt_ids)} tokens, the context {self.max_context}."
            )
        limit = min(self.max_new_tokens, room)

        def show(so_far: list[int]) -> None:
            if on_reply is not None:
                on_reply(self._read(prompt_ids, so_far))

        ids, stopped = await self._engine.generate(
            prompt_ids, limit, seed, on_reply and show, temperature, earlier
        )
        return self._read(prompt_ids, ids, "stop" if stopped else "length"), ids

    def _read(
        self, prompt_ids: list[int], ids: list[int], finish_reason: str = ""
    ) -> AssistantReply:
        """Read a reply's ids; those of a reply under way may end within a letter."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        opened = self.tokenizer.decode(prompt_ids[-_TAIL_TOKENS:]).rstrip().endswith("<think>")
        if opened and not text.startswith("<think>"):
            text = f"<think>{text}"
        reasoning, visible = split_reasoning(text)
        visible = visible if finish_reason else visible.rstrip("\ufffd")
        return AssistantReply(visible, len(prompt_ids), len(ids), finish_reason, reasoning)

    def count_tokens(self, text: str) -> int:
        """Count by the model's tokenizer."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def tokenize(self, messages: Sequence[Message]) -> list[int]:
        """Render a conversation for the model, as in training."""
        text = render_chat(
            merge_consecutive(messages),
            self.tokenizer,
            add_generation_prompt=True,
            **self._template_options,
        )
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def close(self) -> None:
        """Stop generating and free the model's memory; a second call does nothing."""
        if self.model is None:
            return
        self._engine.close()
        self.model.generation_config = self._own_config
        self.model = None
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> "LocalAssistant":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
