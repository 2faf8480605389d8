"""Settings of stages that score conversations: what metrics need besides the conversation."""

from dataclasses import dataclass

from collabllm.rewards.judge import Judge
from collabllm.rewards.registry import MetricTools
from collabllm.servers.client import Address
from collabllm.servers.settings import ServedSettings
from collabllm.settings import setting
from collabllm.simulation.session import Session


@dataclass(kw_only=True)
class JudgeSettings(ServedSettings):
    """Who judges, and whether model-written code may run without isolation."""

    _argument_group_name = "the metrics"

    judge_model: str | None = setting(
        None, "model that rates and extracts, for metrics that need one", metavar="NAME"
    )
    judge_base_url: list[str] | str | None = setting(
        None, "address of the judge's server, or of several", metavar="URL", decides=False
    )
    judge_max_tokens: int = setting(
        2048, "most tokens of a text that the judge copies out of a conversation", least=1
    )
    allow_unsafe_code: bool = setting(
        False, "run model-written code even where it cannot be isolated"
    )

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Add the judge's."""
        found = super().models_behind_servers()
        if self.judge_model:
            found.append((self.judge_model, self.judge_base_url, "judge"))
        return found

    def build_tools(self, session: Session) -> MetricTools:
        """Make the tools that metrics need; the assistant's token counter is added later.

        Raises:
            ValueError: If there is a cost limit and the judge has no price.
        """
        judge = None
        if self.judge_model:
            session.ledger.require_prices([self.judge_model])
            client = session.client(self.judge_base_url)
            judge = Judge(client, self.judge_model, self.judge_max_tokens)
        return MetricTools(judge=judge, allow_unsafe_code=self.allow_unsafe_code)
