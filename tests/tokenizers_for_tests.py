"""Small byte-level tokenizers with the special tokens and chat templates of real families."""

from importlib.resources import files

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Mistral's first instruct models: no system role, one space before the reply, EOS after it.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] + eos_token }}{% else %}"
    "{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# Gemma 2: no system role, and the assistant is called model.
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Phi 3 closes a conversation that nobody goes on with by one more token.
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
# Phi 3's first template leaves out the system prompt, Mistral v0.3 has it in the last user message.
PHI3_FIRST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|user|>\n' + m['content'] + '<|end|>\n<|assistant|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
)
MISTRAL_3 = (
    "{{ bos_token }}{% set first = messages[0] %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and first['role'] == 'system' %}"
    "{{ first['content'] + '\n\n' }}{% endif %}{{ m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# gpt-oss ends the last reply with <|return|>, and the same reply in the history with <|end|>.
GPT_OSS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% else %}"
    "{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
# name: (template, BOS, end-of-turn token, other special tokens)
FAMILIES = {
    "chatml": (CHATML, None, "<|im_end|>", ["<|im_start|>"]),
    # a base model whose eos_token ends documents, taught ChatML
    "chatml_base": (CHATML, None, "<|endoftext|>", ["<|im_start|>", "<|im_end|>"]),
    "llama3_1": (
        "llama3_1",
        "<|begin_of_text|>",
        "<|eot_id|>",
        ["<|start_header_id|>", "<|end_header_id|>"],
    ),
    "qwen2_5": ("qwen2_5", None, "<|im_end|>", ["<|im_start|>"]),
    "qwen3": ("qwen3", None, "<|im_end|>", ["<|im_start|>", "<think>", "</think>"]),
    "gemma": ("gemma", "<bos>", "<end_of_turn>", ["<start_of_turn>"]),
    "gemma2": (GEMMA2, "<bos>", "<end_of_turn>", ["<start_of_turn>"]),
    "phi3": (
        PHI3,
        None,
        "<|endoftext|>",
        ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
    ),
    "gpt_oss": (
        GPT_OSS,
        None,
        "<|return|>",
        ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"],
    ),
    "mistral": (MISTRAL, "<s>", "</s>", ["[INST]", "[/INST]"]),
}


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer; like the real ones it adds a BOS of its own when tokenizing text."""
    template, bos, eos, others = FAMILIES[family]
    if "{" not in template:
        template = files("trl").joinpath(f"chat_templates/{template}.jinja").read_text()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: idx for idx, token in enumerate(alphabet)}
    # one merge across a line break, as real vocabularies have, to test reply boundaries
    vocab["ĊĊ"] = len(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = [token for token in (bos, eos, *others) if token]
    backend.add_special_tokens(special)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        chat_template=template,
    )
