"""Human activity from motion sensors: a 1-D CNN taught on phones, adapted to unseen watches.

`pretrain(seed)` teaches the network on the phones of subjects 1 to 18. `motion.py:factory` is
that network (its weights are kept in the file named by EDGETUNE_MOTION_WEIGHTS, where it is set);
`write_data(folder)` writes for each watch of subjects 19 to 23 what it is adapted with and what
it is tested on. The recordings come from the folder named by EDGETUNE_DATA.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, Tensor], nn.Module]

RECORDINGS = "sensor/har_sp_sw_100hz.npz"
CLASSES = 5
LAST_PRETRAINING_SUBJECT = 18
HELD_OUT_SUBJECTS = (19, 20, 21, 22, 23)
ADAPT_EXECUTIONS = 2
SCALE = (10.0, 10.0, 10.0, 2.0, 2.0, 2.0)
"""Acceleration (m/s^2) and rotation (rad/s) are divided by these."""

HEAD = ("head.*",)
ADAPTED = ("conv2.*", "conv3.*", "conv4.*", *HEAD)


def data_file(name: str) -> Path:
    """The path of a file in the folder named by EDGETUNE_DATA."""
    folder = os.environ.get("EDGETUNE_DATA")
    if not folder:
        raise FileNotFoundError("EDGETUNE_DATA is not set: it names the folder with the real data")
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"EDGETUNE_DATA is {folder}, which has no {name}")
    return path


class MotionCNN(nn.Module):
    """Four strided 1-D convolutions, the mean over time, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(6, 32, 7, stride=2, padding=3)
        self.conv2 = nn.Conv1d(32, 64, 5, stride=2, padding=2)
        self.conv3 = nn.Conv1d(64, 64, 5, stride=2, padding=2)
        self.conv4 = nn.Conv1d(64, 64, 3, stride=1, padding=1)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows [N, 6, 100] to logits [N, 5]."""
        x = torch.relu(self.conv1(windows))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.conv4(x))
        logits: Tensor = self.head(self.dropout(x.mean(dim=2)))
        return logits


def pretrain(seed: int, epochs: int = 15, batch_size: int = 64) -> dict[str, Tensor]:
    """Teach the network on the phones of subjects 1 to 18; the same seed gives the same weights."""
    windows, targets, subject, is_watch, _ = _recordings()
    rows = ~is_watch & (subject <= LAST_PRETRAINING_SUBJECT)
    x, y = torch.from_numpy(windows[rows]), torch.from_numpy(targets[rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MotionCNN().train()
        loss = nn.CrossEntropyLoss()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        steps = epochs * -(-len(x) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for start in range(0, len(x), batch_size):
                batch = order[start : start + batch_size]
                optimizer.zero_grad()
                torch.autograd.backward(loss(model(x[batch]), y[batch]))
                optimizer.step()
                schedule.step()
    return {name: value.detach() for name, value in model.state_dict().items()}


def pretrained(path: Path, seed: int = 0) -> dict[str, Tensor]:
    """The weights kept in `path`; they are taught and written there first if it is missing."""
    if not path.is_file():
        unfinished = path.with_name(path.name + ".part")
        save_file(pretrain(seed), unfinished)
        unfinished.replace(path)
    return load_file(path)


def factory() -> Example:
    """The network taught on phones, in eval; windows [8, 6, 100], targets [8]."""
    kept = os.environ.get("EDGETUNE_MOTION_WEIGHTS")
    model = MotionCNN()
    model.load_state_dict(pretrained(Path(kept)) if kept else pretrain(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        windows, targets = torch.randn(8, 6, 100), torch.randint(CLASSES, (8,))
    return model.eval(), (windows, targets), nn.CrossEntropyLoss()


def write_data(folder: Path) -> None:
    """Write `subject_S_adapt.npz` and `subject_S_test.npz` for the watch of each held-out S.

    A watch is adapted with its first two executions (33 to 42 windows) and tested on all later
    ones, so no execution is in both. `windows` is float32 [N, 6, 100], `targets` int64 [N].
    """
    windows, targets, subject, is_watch, execution = _recordings()
    for held_out in HELD_OUT_SUBJECTS:
        watch = is_watch & (subject == held_out)
        early = watch & (execution <= ADAPT_EXECUTIONS)
        for name, rows in (("adapt", early), ("test", watch & ~early)):
            path = Path(folder) / f"subject_{held_out}_{name}.npz"
            np.savez(path, windows=windows[rows], targets=targets[rows])


def _recordings() -> tuple[
    NDArray[np.float32],
    NDArray[np.int64],
    NDArray[np.uint8],
    NDArray[np.bool_],
    NDArray[np.uint8],
]:
    """Scaled windows [N, 6, 100], targets, subject, whether a watch, execution; each [N]."""
    with np.load(data_file(RECORDINGS)) as file:
        windows = file["x"].astype(np.float32) / np.asarray(SCALE, np.float32)[:, None]
        return (
            windows,
            file["y"].astype(np.int64),
            file["subject"],
            file["is_watch"],
            file["execution"],
        )
