"""The random model that ends its replies, of the tests of training."""

from tests.training.conftest import brief_model

__all__ = ["brief_model"]
