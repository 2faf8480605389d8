"""A conversation at the terminal in which a person may take either side."""

from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from collabllm.messages import Message, to_chat
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.user_models import UserModel

_HELP = (
    "Enter: let the model speak. Text: say it yourself. /undo: take the last message back. /quit"
)


def interactive_rollout(
    assistant: Assistant,
    user_model: UserModel,
    conversation_prefix: Sequence[Message] = (),
    max_turns: int = 10,
    console: Console | None = None,
) -> list[Message]:
    """Talk turn by turn: an empty line generates, a text is used instead.

    Works with piped input, too; the end of the input ends the conversation.

    Args:
        assistant: Answers when the line is empty.
        user_model: Speaks for the user when the line is empty.
        conversation_prefix: Messages so far; not changed.
        max_turns: Most user messages.
        console: Where to print; the terminal by default.

    Returns:
        The conversation.
    """
    console = console or Console()
    messages = to_chat(conversation_prefix)
    start = len(messages)
    console.print(Text(_HELP, style="dim"))
    for message in messages:
        _show(console, message)
    while True:
        speaker = "assistant" if messages and messages[-1]["role"] == "user" else "user"
        num_user = sum(message["role"] == "user" for message in messages[start:])
        if speaker == "user" and num_user >= max_turns:
            console.print(Text(f"{max_turns} turns: the conversation ends.", style="dim"))
            return messages
        try:
            line = console.input(f"[bold]{speaker}[/bold]> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return messages
        if line == "/quit":
            return messages
        if line == "/undo":
            if len(messages) > start:
                messages.pop()
                console.print(Text("Taken back.", style="dim"))
            else:
                console.print(Text("There is nothing to take back.", style="dim"))
            continue
        if line.startswith("/"):
            console.print(Text(f"Unknown command {line}. {_HELP}", style="dim"))
            continue
        if speaker == "assistant":
            messages.append({"role": "assistant", "content": line or assistant.generate(messages)})
        else:
            turn = None if line else user_model.generate(messages)
            if turn is not None and turn.is_terminal:
                console.print(Text(f"The user ends: {turn.response}", style="dim"))
                return messages
            messages.append({"role": "user", "content": line or (turn.response if turn else "")})
        _show(console, messages[-1])


def _show(console: Console, message: Message) -> None:
    style = {"user": "cyan", "assistant": "green"}.get(message["role"], "dim")
    console.print(Panel(Text(message["content"]), title=message["role"], border_style=style))
