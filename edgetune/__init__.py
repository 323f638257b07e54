"""Sparse fine-tuning on edge devices within a memory and an energy budget.

The device side in five names:

    session = open_session(Path("bundle"))
    data = load_data("train.npz", session.manifest.signature, session.manifest.loss)
    result = Trainer(session, TrainerConfig(epochs=5)).fit(data)
    evaluate(session, data)
    session.write_inference_model(Path("tuned.onnx"))
"""

from edgetune.data.dataset import Dataset, load_data
from edgetune.runtime.open_session import open_session
from edgetune.runtime.trainer import Evaluation, Trainer, TrainerConfig, TrainingResult, evaluate

__all__ = [
    "open_session",
    "load_data",
    "Dataset",
    "Trainer",
    "TrainerConfig",
    "TrainingResult",
    "evaluate",
    "Evaluation",
]
