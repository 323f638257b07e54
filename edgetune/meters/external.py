"""A meter outside the device, over the simplest of protocols: a command that prints watts.

One number per line, `5.21` or `5.21 W`, as often as the meter has a new one; empty lines and those
that begin with # are passed over. So an INA219 on I2C read by a script, a wall plug asked over the
network or a bench meter on a serial port all fit. The line must be flushed when it is printed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

from edgetune.errors import MeterError
from edgetune.meters.background import Background
from edgetune.meters.meter import plausible_watts
from edgetune.nouns.energy import ReadingKind
from edgetune.nouns.profile import PowerScope

_LINE = re.compile(r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*W?")
_ENDS_WITHIN_SECONDS = 2.0


class ExternalMeter(Background):
    """A running command that prints watts, one reading per line; a context manager.

    command: the program and its arguments. scope: what that meter measures.
    stale_seconds: a reading older than this is no reading; it also bounds the wait for the first.
    highest_watts: more than this is nonsense.
    Raises MeterError when the command cannot be started.
    """

    name = "external"
    kind: ReadingKind = "measured"
    relative_error: float | None = None

    def __init__(
        self,
        command: Sequence[str],
        scope: PowerScope,
        stale_seconds: float = 5.0,
        highest_watts: float = 10_000.0,
    ) -> None:
        self.scope: PowerScope = scope
        self._command = shlex.join(command)
        self._stale_seconds = stale_seconds
        self._highest_watts = highest_watts
        self._arrived = threading.Condition()
        self._line = ""
        self._line_seconds = 0.0
        self._first_seconds = 0.0
        self._lines = 0
        self._ended = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                errors="replace",
            )
        except (OSError, IndexError) as error:
            self._errors.close()
            reason = getattr(error, "strerror", None) or "there is no command"
            raise MeterError(f"cannot start the meter {self._command!r}: {reason}") from error
        assert self._process.stdout is not None
        self._output: IO[str] = self._process.stdout
        self._reader = self._begin(self._read, "edgetune-meter")

    @property
    def source(self) -> str:
        """The command."""
        return f"external: {self._command}"

    @property
    def update_seconds(self) -> float:
        """The mean time between its lines, in seconds; 0 before the second."""
        with self._arrived:
            if self._lines < 2:
                return 0.0
            return (self._line_seconds - self._first_seconds) / (self._lines - 1)

    def watts(self) -> float:
        """What its newest line says, in watts.

        Raises MeterError when that is no power, is stale, or the command has ended.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self._lines or self._ended, self._stale_seconds)
            if self._ended:
                raise MeterError(self._how_it_ended())
            age = time.monotonic() - self._line_seconds
            if not self._lines or age > self._stale_seconds:
                raise MeterError(
                    f"the meter {self._command!r} printed nothing for {self._stale_seconds:g} s; "
                    f"does it flush its output after every line?"
                )
            line = self._line
        match = _LINE.fullmatch(line)
        if match is None:
            raise MeterError(
                f"the meter {self._command!r} printed {line[:80]!r}, expected watts, such as 5.21"
            )
        return plausible_watts(float(match.group(1)), self.source, self._highest_watts)

    def close(self) -> None:
        """End the command."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_ENDS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(_ENDS_WITHIN_SECONDS)
        if not self._reader.is_alive():  # a child of the command may still hold its output
            self._output.close()
        self._errors.close()

    def __enter__(self) -> ExternalMeter:
        return self

    def _end(self) -> None:
        self.close()

    def _read(self) -> None:
        for text in self._output:
            line = text.strip()
            if not line or line.startswith("#"):
                continue
            with self._arrived:
                self._line, self._line_seconds = line, time.monotonic()
                self._first_seconds = self._first_seconds if self._lines else self._line_seconds
                self._lines += 1
                self._arrived.notify_all()
        self._process.wait()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _how_it_ended(self) -> str:
        said = ""
        if not self._errors.closed:
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").strip()[-200:]
        ending = f"the meter {self._command!r} ended with exit code {self._process.returncode}"
        return f"{ending}: {said}" if said else ending
