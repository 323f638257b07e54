"""Work beside the training: a thread that ends when the block of whoever began it is left."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable


class Background(ABC):
    """Leaving the block of this context manager ends the work in the thread."""

    @abstractmethod
    def _end(self) -> None:
        """End the work; it may have ended already."""

    def __exit__(self, *left: object) -> None:
        self._end()

    @staticmethod
    def _begin(work: Callable[[], None], name: str) -> threading.Thread:
        """`work` in a thread, which no process waits for that is done otherwise."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread
