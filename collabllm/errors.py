"""Errors with a sentence for the user; none of these texts carries a key or a goal."""


class CollabLLMError(Exception):
    """Base of our own errors."""


class IncompleteRunError(CollabLLMError):
    """A run ended before its work was done; the text says what is kept and how to go on."""


class SimulationError(CollabLLMError):
    """Base of the errors below, which can end a conversation early.

    `ending` is the name of the ending; `ends_run` tells that no other conversation will fare
    better.
    """

    ending = "error"
    ends_run = False


class ServerError(SimulationError):
    """A server refused or failed for good, after all retries."""

    ending = "server_error"


class ContextFullError(SimulationError):
    """The conversation does not fit into the model's context any more."""

    ending = "context_full"


class UnparseableError(SimulationError):
    """The simulated user's output could not be read, after all retries."""

    ending = "user_unparseable"


class CostLimitError(SimulationError):
    """The cost limit is reached; nothing more is sent."""

    ending = "cancelled"
    ends_run = True


class ReplayMissError(SimulationError):
    """A request is not in the cache that is replayed."""

    ending = "server_error"
