"""The command line of a training: our settings, and every field of TRL's config as a flag."""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from collabllm.settings import parse_settings_and_rest

S = TypeVar("S")


def parse_training_flags(
    settings: type[S], method: str, description: str, argv: Sequence[str] | None = None
) -> tuple[S, dict[str, Any]]:
    """Read settings, and fields of TRL's config, from the command line and from --config.

    Args:
        settings: The method's dataclass.
        method: Such as `sft`, for TRL's `SFTConfig`.
        description: First paragraph of `--help`.
        argv: Words of the command line; those of this process by default.

    Raises:
        SystemExit: With status 2 and one sentence, if a flag, a value or the file does not fit.
    """
    return parse_settings_and_rest(
        settings,
        lambda: trainer_field_names(method),
        argv,
        description=description,
        epilog=f"Every field of TRL's {method.upper()}Config is a flag, too, for example "
        "--max_steps 100, --output_dir DIR, --report_to none, --resume_from_checkpoint auto.",
    )


def trainer_field_names(method: str) -> set[str]:
    """Read the field names of a TRL config from its source; to import it would load torch."""
    names: set[str] = set()
    for module in (
        f"trl.trainer.{method}_config",
        "trl.trainer.base_config",
        "transformers.training_args",
    ):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
                names |= {field.id for field in fields if isinstance(field, ast.Name)}
    return names
