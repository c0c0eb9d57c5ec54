from pathlib import Path

import pytest

from training import config as training_config
from training.config import TrainingConfig

RECIPE_OF_RECORD = Path(__file__).parents[2] / "config" / "training_config.yaml"


@pytest.fixture(scope="session")
def recipe() -> TrainingConfig:
    return training_config.load(RECIPE_OF_RECORD)
