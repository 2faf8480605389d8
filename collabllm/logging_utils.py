"""Logging for the scripts: our messages and the libraries' warnings, without their chatter."""

import logging
import os
import warnings


def configure_logging(level: int = logging.INFO) -> None:
    """Show our INFO messages on the main process and keep the libraries to warnings."""
    is_main = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("collabllm").setLevel(level if is_main else logging.WARNING)
    # bitsandbytes reports on import that an optional download of CPU kernels is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"(pyarrow|torch|transformers|trl)\."
    )
