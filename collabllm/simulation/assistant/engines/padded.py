"""Generate for many callers at once in padded batches with a reused cache, meant for CPUs.

On a CPU this beats continuous batching, which gathers every cached page again for each token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.simulation.assistant.engines.batching import BatchingEngine, Request
from collabllm.simulation.assistant.engines.cpu_attention import use_grouped_attention
from collabllm.simulation.assistant.engines.no_repeat import NoRepeat
from collabllm.simulation.assistant.engines.prefix_store import Layers, PrefixStore, build_cache
from collabllm.simulation.assistant.engines.seeded_sampling import SeededSampling


class _Watch(StoppingCriteria):
    """Shows each row of a batch as it is written, and ends those whose call was cancelled."""

    def __init__(self, batch: Sequence[Request], width: int) -> None:
        self._batch, self._width = batch, width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows end here, shape [rows]."""
        gone = [request.done.cancelled() for request in self._batch]
        for request, is_gone, ids in zip(self._batch, gone, input_ids, strict=True):
            if not is_gone:
                request.show(ids[self._width :])
        return torch.tensor(gone, device=input_ids.device)


class PaddedEngine(BatchingEngine):
    """Plain `generate` on left-padded batches of whoever waits; encodes only what is new."""

    def __init__(self, model: Any, tokenizer: Any, sampling: dict[str, Any]) -> None:
        self.prompt_tokens_encoded = 0
        self._model, self._sampling = model, dict(sampling)
        own = self._sampling.pop("temperature", 1.0)
        self._no_repeat = self._sampling.pop("no_repeat_ngram_size", 0)
        use_grouped_attention(model)
        self._store = PrefixStore()
        temperature = own if self._sampling.pop("do_sample") else 0.0
        super().__init__(temperature, end_ids(model, tokenizer))

    def _generate_batch(self, batch: Sequence[Request]) -> list[tuple[list[int], bool]]:
        """Generate for a batch, and store what it has computed.

        One column of the batch is one position of the key-value cache, so what rows have stored and
        what is new to them line up, each padded on the left:

            |<------ old_width ------>|<--------- new_width --------->|<-- longest -->|
            | padding | stored prefix | padding | rest of the prompt  | reply | end   |
        """
        found = [self._store.find(request.prompt_ids) for request in batch]
        ids, mask, old_width = self._lay_out([request.prompt_ids for request in batch], found)
        longest = max(request.max_new_tokens for request in batch)
        with torch.no_grad():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=build_cache(self._model, found, old_width, ids.shape[1] + longest),
                max_new_tokens=longest,
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                return_dict_in_generate=True,
                do_sample=False,
                logits_processor=self._processors(batch, ids.shape[1]),
                stopping_criteria=StoppingCriteriaList([_Watch(batch, ids.shape[1])]),
            )
        replies = output.sequences[:, ids.shape[1] :].tolist()
        outcomes = [
            self._cut(new_ids[: request.max_new_tokens])
            for new_ids, request in zip(replies, batch, strict=True)
        ]
        self._store.add_rows(
            [r.prompt_ids + new for r, (new, _) in zip(batch, outcomes, strict=True)],
            mask.bool(),
            output.past_key_values,
        )
        return outcomes

    def _lay_out(
        self, prompts: Sequence[list[int]], found: Sequence[Layers]
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Pad prompts on the left, their cached and their new part each.

        Returns:
            Ids and attention mask, shape [batch, old_width + new_width], and old_width.
        """
        cached = [layers[0][0].shape[1] if layers else 0 for layers in found]
        new_width = max(len(ids) - num for ids, num in zip(prompts, cached, strict=True))
        self.prompt_tokens_encoded += sum(map(len, prompts)) - sum(cached)
        rows: list[list[int]] = []
        mask: list[list[int]] = []
        for prompt, num in zip(prompts, cached, strict=True):
            num_new = len(prompt) - num
            old_pad, new_pad = [0] * (max(cached) - num), [0] * (new_width - num_new)
            rows.append(old_pad + prompt[:num] + new_pad + prompt[num:])
            mask.append(old_pad + [1] * num + new_pad + [1] * num_new)
        device = self._model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device), max(cached)

    def _processors(self, batch: Sequence[Request], width: int) -> LogitsProcessorList:
        found = LogitsProcessorList()
        if self._no_repeat:
            earlier = [request.earlier for request in batch]
            found.append(NoRepeat(earlier, self._no_repeat, width))
        temperatures = [request.temperature for request in batch]
        if any(temperatures):
            seeds = [request.seed for request in batch]
            options = {"device": self._model.device, **self._sampling}
            found.append(SeededSampling(seeds, temperatures=temperatures, **options))
        return found

    def _clear(self) -> None:
        self._store.clear()
