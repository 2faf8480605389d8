"""Talk with a model in a browser, or with two side by side.

uv run python scripts/chat.py --arm name=base --arm name=trained,lora_path=outputs/demo_sft
"""

from collections.abc import Sequence

from collabllm.chat.settings import ChatSettings
from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    settings = parse_settings(ChatSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.chat.run import chat  # the web server loads here, so that --help answers at once

    chat(settings)


if __name__ == "__main__":
    run_script(main)
