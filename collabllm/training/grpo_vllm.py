"""What online training with TRL's vLLM needs, said before any weights load."""

from typing import Any

from trl.import_utils import is_vllm_available

from collabllm.training.grpo_settings import GRPOSettings


def check_vllm(settings: GRPOSettings, config: Any) -> None:
    """Refuse what cannot work.

    Raises:
        ValueError: If vLLM is missing, or would not write what the model in training would.
    """
    if not is_vllm_available():
        raise ValueError(
            "--use_vllm: vLLM is not installed here. It pins its own torch: install this project "
            "into vLLM's environment (uv pip install .), or leave the flag out."
        )
    if settings.load_in_4bit:
        raise ValueError(
            "--use_vllm with --load_in_4bit: to hand vLLM a 4-bit model with its adapter rounds "
            "the adapter away. Use --load_in_4bit false."
        )
    if config.vllm_mode == "colocate" and config.vllm_tensor_parallel_size > 1:
        raise ValueError(
            "--vllm_tensor_parallel_size over 1 needs all processes to generate in step, and each "
            "talks by itself. Use 1, or --vllm_mode server."
        )
    if settings.credit == "conversation" and config.vllm_importance_sampling_correction:
        raise ValueError(
            "--use_vllm with --credit conversation has no log-probabilities of vLLM's to correct "
            "by. Use --vllm_importance_sampling_correction false, or --credit turn."
        )
