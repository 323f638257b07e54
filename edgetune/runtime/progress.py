"""What a run tells while it works: one line for people, JSON lines for machines."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from edgetune.errors import StorageError
from edgetune.runtime.process_memory import current_bytes
from edgetune.units import format_bytes, format_seconds

_SECONDS_BETWEEN_DRAWINGS = 0.1
_BAR_WIDTH = 20


class ProgressBar:
    """One line on a terminal, redrawn in place; silent on anything else, or when `quiet`."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = not quiet and self._stream.isatty()
        self._last_drawn = -math.inf
        self._width = 0

    def show(
        self, epoch: int, epochs: int, batch: int, batches: int, loss: float, step_seconds: float
    ) -> None:
        """Draw that `batch` of `batches` are done in `epoch` (from 0) of `epochs`.

        At most 10 times a second; the end of an epoch is always drawn.
        """
        now = time.monotonic()
        due = now - self._last_drawn >= _SECONDS_BETWEEN_DRAWINGS or batch == batches
        if not self._shown or not due:
            return
        self._last_drawn = now
        filled = _BAR_WIDTH * batch // batches
        memory = current_bytes()
        parts = [
            f"epoch {epoch + 1}/{epochs} [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}]",
            f"{batch}/{batches}",
            f"loss {loss:.4f}",
            f"step {format_seconds(step_seconds)}",
            *([] if memory is None else [f"memory {format_bytes(memory)}"]),
        ]
        self._draw("  ".join(parts))

    def close(self) -> None:
        """Clear the line."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0

    def _draw(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns
        line = line[: max(columns - 1, 1)]  # a wrapped line could not be redrawn in place
        padding = " " * max(min(self._width, columns - 1) - len(line), 0)
        self._stream.write(f"\r{line}{padding}")
        self._stream.flush()
        self._width = len(line)


@dataclass(frozen=True)
class LogRecord:
    """One line of the log; what an event does not have is null.

    event: "step" (loss, accuracy of the batch), "epoch" (means over the epoch), or "validation".
    epoch: from 0. step: updates done so far. step_seconds: duration of the step, in seconds.
    grad_norm: global L2 norm before clipping. peak_bytes: peak resident memory of the process.
    """

    event: str
    epoch: int
    step: int
    loss: float
    accuracy: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    step_seconds: float | None = None
    peak_bytes: int | None = None


class JsonLines:
    """Appends one JSON object per line to `path`, each visible to readers at once.

    A run that was killed may have left steps after its last checkpoint: when it resumes, those
    steps are logged again, and the later line counts. Raises StorageError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            if _ends_within_a_line(path):
                self._file.write(b"\n")
        except OSError as error:
            raise self._failure(error) from error

    def write(self, record: LogRecord) -> None:
        """Append `record`."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(record).items()
        }
        try:
            self._file.write(json.dumps(finite).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write the log {self._path}: {error.strerror or error}")


def _ends_within_a_line(path: Path) -> bool:
    """Whether a writer was killed in the middle of the last line."""
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
