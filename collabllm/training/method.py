"""What a method of training is: its settings, TRL's config and trainer, its data, its score."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from collabllm.training.data import TrainingData
from collabllm.training.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerState

    from collabllm.training.run import Run

Scores = dict[str, float]


class Method(ABC):
    """What one method of training adds to the shared path; one object per run."""

    name: ClassVar[str]
    """Name of the script, and the beginning of the run's name."""
    config_class: ClassVar[type]
    """TRL's config; every field is a flag."""
    settings_class: ClassVar[type[TrainingSettings]]
    made_by: ClassVar[str]
    """Words of the card: `Trained with CollabLLM … DATASET`."""

    def config_fields(self, settings: Any) -> dict[str, Any]:
        """Return fields of TRL's config that only this method has."""
        return {"max_length": settings.max_length}

    def check(self, settings: Any, config: Any) -> None:  # noqa: B027
        """Refuse settings that do not fit each other, before data and model are there.

        Raises:
            ValueError: If there are some.
        """

    @abstractmethod
    def prepare_data(
        self, settings: Any, tokenizer: "PreTrainedTokenizerBase", config: Any
    ) -> TrainingData:
        """Load, convert, tokenize and check the data; runs in one process only."""

    @abstractmethod
    def build_trainer(self, run: "Run", data: TrainingData) -> "Trainer":
        """Make the trainer, by `run.build_trainer`."""

    @abstractmethod
    def score(self, trainer: "Trainer", data: TrainingData) -> Scores:
        """Measure the model on held-out data; empty where nothing is held out."""

    def count_rows(self, num_rows: int, config: Any) -> int:
        """Return what batches count in an epoch, for so many rows of training data."""
        return num_rows

    def is_over(self, settings: Any, state: "TrainerState") -> bool:
        """Tell whether a checkpoint's training has ended, for another reason than `max_steps`."""
        return False

    def end(self, trainer: Any) -> None:
        """Close the trackers, and whatever else the method has opened."""
        trainer.accelerator.end_training()
