"""What scripts/chat.py does: open the arms, and serve the page until Ctrl-C."""

from pathlib import Path
from urllib.parse import quote

from collabllm.chat.app import build_app
from collabllm.chat.settings import ChatSettings
from collabllm.chat.talks import Talks
from collabllm.evaluation.people import open_desk
from collabllm.files import hold_lock
from collabllm.servers.kept_usage import keep_usage
from collabllm.web import Guard, address_of, find_port, serve


def chat(settings: ChatSettings) -> None:
    """Serve the chat page.

    Raises:
        FileNotFoundError: If an adapter is not there.
        KeyboardInterrupt: After Ctrl-C; the text says where the conversations are.
        OSError: If the port is taken, or another page writes into the folder.
        ValueError: If an arm does not fit.
    """
    arms, folder = settings.arms, Path(settings.output_dir)
    taken = OSError(
        f"{folder}: another chat writes there; wait for its end, or choose another --output_dir."
    )
    with (
        open_desk(settings) as desk,
        find_port(settings.host, settings.port) as listener,
        hold_lock(folder / ".chat.lock", taken),
        keep_usage(folder, desk.ledger),
    ):
        prompts = {arm.name: arm.prompt(settings.system_prompt) for arm in arms}
        talks = Talks(desk, prompts, folder, settings.max_talks, settings.max_replies)
        app = build_app(talks, beside=arms[1].name if len(arms) == 2 else None)
        guarded = Guard(app, settings.host, settings.host_names, settings.token)
        path = f"/?token={quote(settings.token)}" if settings.token else "/"
        print(f"Open {address_of(listener, path)} in a browser; Ctrl-C ends.", flush=True)
        try:
            serve(guarded, listener)
        except KeyboardInterrupt:
            view = f"uv run python scripts/view.py {folder}"
            has_talks = any(folder.glob("[!.]*.jsonl"))
            saved = f"The conversations are in {folder}: {view}" if has_talks else "Bye."
            raise KeyboardInterrupt(saved) from None
