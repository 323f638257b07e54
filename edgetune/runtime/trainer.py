"""The training loop: epochs, batches, validation, early stopping.

What a run has reached is a `TrainingRun` (training_run.py); this file drives it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgetune.data.dataset import Dataset, check_data
from edgetune.errors import TrainingError, UsageError, raise_all
from edgetune.guards.guard import Stop, Work
from edgetune.guards.watch import Watch
from edgetune.runtime.batches import BatchPlan, batch_count, epoch_order, micro_batches, plan_batch
from edgetune.runtime.evaluation import Evaluation, evaluate, evaluate_unless
from edgetune.runtime.interrupts import Interrupts
from edgetune.runtime.learning_rate import learning_rate
from edgetune.runtime.process_memory import peak_bytes
from edgetune.runtime.progress import JsonLines, LogRecord, ProgressBar
from edgetune.runtime.session import TrainingSession
from edgetune.runtime.trainer_config import TrainerConfig
from edgetune.runtime.training_result import TrainingResult
from edgetune.runtime.training_run import TrainingRun

__all__ = ["Trainer", "TrainerConfig", "TrainingResult", "Evaluation", "evaluate"]

_STEPS_TIMED = 4096


class _Stopped(Exception):  # noqa: N818 - no error, an outcome
    """A budget ends the run; never leaves this file."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class Trainer:
    """Trains what `session` holds, as `config` says, while `watch` allows it (edgetune.guards)."""

    def __init__(
        self, session: TrainingSession, config: TrainerConfig, watch: Watch | None = None
    ) -> None:
        if config.monitor == "accuracy" and not session.manifest.loss.has_accuracy:
            raise UsageError(
                f"cannot monitor the accuracy: the loss {session.manifest.loss.kind} has none; "
                "use monitor='loss'"
            )
        self._session = session
        self._config = config
        self._watch = Watch() if watch is None else watch

    def fit(
        self, train: Dataset, validation: Dataset | None = None, resume: bool = False
    ) -> TrainingResult:
        """Train until the epochs are done or patience is out, and leave the values in the session.

        With `resume` the run continues from the checkpoint bit for bit, also within an epoch.
        Ctrl-C or SIGTERM end the current step, write a checkpoint where one is configured, and
        raise KeyboardInterrupt (exit code 130 on the command line). A budget that ends the run is
        in the result (`stopped_by`): the step that was begun is forgotten, and the checkpoint
        written.

        Raises UsageError, DataError before the first step, CheckpointError when `resume` does not
        fit, TrainingError when a loss or gradient is not finite (nothing is updated with it, and
        the last checkpoint stays), StorageError when a checkpoint or the log cannot be written.
        """
        self._check(train, validation, resume)
        run = TrainingRun(self._session, self._config, train, validation)
        if resume:
            run.resume()
        with ExitStack() as stack:
            log_path = self._config.log_path
            log = None if log_path is None else stack.enter_context(JsonLines(log_path))
            bar = ProgressBar(quiet=not self._config.progress)
            stack.callback(bar.close)
            interrupts = stack.enter_context(Interrupts())
            loop = _Loop(self._session, self._config, run, self._watch, interrupts, log, bar)
            loop.train(train, validation)
        return loop.result()

    def _check(self, train: Dataset, validation: Dataset | None, resume: bool) -> None:
        problems = []
        if resume and self._config.checkpoint_path is None:
            problems.append("resuming needs a checkpoint_path")
        if validation is None and self._config.patience is not None:
            problems.append("patience needs validation data")
        raise_all(UsageError, "cannot train", problems)
        manifest = self._session.manifest
        check_data(train, manifest.signature, manifest.loss, "the training data")
        if validation is not None:
            check_data(validation, manifest.signature, manifest.loss, "the validation data")


class _Loop:
    """One call of `fit`."""

    def __init__(
        self,
        session: TrainingSession,
        config: TrainerConfig,
        run: TrainingRun,
        watch: Watch,
        interrupts: Interrupts,
        log: JsonLines | None,
        bar: ProgressBar,
    ) -> None:
        self._session = session
        self._config = config
        self._run = run
        self._watch = watch
        self._interrupts = interrupts
        self._log = log
        self._bar = bar
        self._seconds: deque[float] = deque(maxlen=_STEPS_TIMED)
        self._steps = 0
        self._stopped_by: Stop | None = None

    def train(self, train: Dataset, validation: Dataset | None) -> None:
        run = self._run
        self._watch.start()
        try:
            while run.epoch < self._config.epochs and not run.out_of_patience:
                self._train_epoch(train)
                self._end_epoch(validation)
                self._save()
                self._leave_if_interrupted()
        except _Stopped as stopped:
            self._stopped_by = stopped.stop
            self._save()
        run.restore_best(stopped=self._stopped_by is not None)

    def result(self) -> TrainingResult:
        run = self._run
        last = run.history[-1] if run.history else None  # a budget may end the first epoch
        return TrainingResult(
            epochs=run.epoch,
            steps=run.step,
            train_loss=None if last is None else last.train_loss,
            validation_loss=None if last is None else last.validation_loss,
            history=tuple(run.history),
            stopped_early=run.out_of_patience and run.epoch < self._config.epochs,
            best_epoch=run.best_epoch,
            peak_bytes=peak_bytes(),
            median_step_seconds=statistics.median(self._seconds) if self._seconds else None,
            stopped_by=self._stopped_by,
            paused_seconds=dict(self._watch.paused_seconds),
            holds_best=run.holds_best,
            micro_batch=self._session.manifest.plan.micro_batch,
        )

    def _train_epoch(self, train: Dataset) -> None:
        run = self._run
        order, _ = epoch_order(len(train), self._config.seed, run.epoch)
        batches = batch_count(len(order), run.batch)
        while run.batch_in_epoch < batches:
            start = run.batch_in_epoch * run.batch
            where = f"batch {run.batch_in_epoch + 1} of {self._where()}"
            rows = order[start : start + run.batch]
            plan = plan_batch(train, rows, self._session.manifest, where)
            try:
                self._step(train, plan, batches)
            except _Stopped as stopped:
                if stopped.stop.budget == "memory" and self._session.smaller():
                    continue  # the same batch again, in smaller pieces
                raise
            every = self._config.checkpoint_every_steps
            if every is not None and run.step % every == 0:
                self._save()
            self._leave_if_interrupted()

    def _step(self, train: Dataset, plan: BatchPlan, batches: int) -> None:
        config, run = self._config, self._run
        started, paused = time.perf_counter(), sum(self._watch.paused_seconds.values())
        rate = learning_rate(
            config.schedule,
            config.learning_rate,
            run.step,
            config.epochs * batches,
            config.warmup_steps,
        )
        loss, correct = self._accumulate(train, plan)
        norm = self._update(rate)
        paused = sum(self._watch.paused_seconds.values()) - paused
        seconds = time.perf_counter() - started - paused
        run.add_step(plan, loss, correct, rate)
        self._seconds.append(seconds)
        self._steps += 1
        self._bar.show(run.epoch, config.epochs, run.batch_in_epoch, batches, loss, seconds)
        accuracy = correct / plan.counted if plan.counted else None
        self._write("step", loss, accuracy, rate, norm, seconds)

    def _accumulate(self, train: Dataset, plan: BatchPlan) -> tuple[float, int]:
        """Loss and right predictions of the batch, its gradients in the session."""
        loss, correct = 0.0, 0
        try:
            pieces = micro_batches(train, plan, self._session.manifest.plan.micro_batch)
            for place, batch in enumerate(pieces):
                self._hold_budgets("micro-batch" if place else "step")
                result = self._session.accumulate(batch)
                loss += result.loss
                correct += result.correct
                if not math.isfinite(loss):
                    raise TrainingError(self._diverged(f"the loss is {loss}"))
            self._hold_budgets("update")
        except BaseException:
            self._session.discard()  # also when interrupted: half a batch must not be updated with
            raise
        return loss, correct

    def _update(self, rate: float) -> float:
        try:
            return self._session.update(rate, self._config.clip_norm)
        except TrainingError as error:
            self._session.discard()
            raise TrainingError(self._diverged(str(error))) from error

    def _end_epoch(self, validation: Dataset | None) -> None:
        run, measured = self._run, None
        if validation is not None:
            measured = evaluate_unless(self._session, validation, self._evaluation_ends)
            if measured is None:
                self._leave_if_interrupted()
            elif not math.isfinite(measured.loss):
                raise TrainingError(self._diverged(f"the validation loss is {measured.loss}"))
        record = run.end_epoch(measured)
        self._write("epoch", record.train_loss, record.train_accuracy, record.learning_rate)
        if measured is not None:
            self._write("validation", measured.loss, measured.accuracy)

    def _hold_budgets(self, work: Work) -> None:
        """Return when the watch allows the next piece of work; else raise what ends the run."""
        stop = self._watch.check(work, self._steps, self._is_interrupted)
        if stop is not None:
            raise _Stopped(stop)
        if self._watch.cut_short:
            self._leave_if_interrupted()

    def _evaluation_ends(self) -> bool:
        self._hold_budgets("evaluation")
        return self._is_interrupted()

    def _is_interrupted(self) -> bool:
        return self._interrupts.received is not None

    def _leave_if_interrupted(self) -> None:
        if self._interrupts.received is None:
            return
        kept = self._save()
        raise KeyboardInterrupt(
            f"{self._interrupts.received} after step {self._run.step}; "
            + ("no checkpoint is configured" if kept is None else f"resume from {kept}")
        )

    def _save(self) -> Path | None:
        """Write the checkpoint, if one is configured; values that are lost must not replace it."""
        for name, value in self._session.values(copy=False).items():
            # Its extremes tell, without a temporary of its size.
            if not np.isfinite([value.min(initial=0), value.max(initial=0)]).all():
                raise TrainingError(
                    f"the last update made {name} infinite or NaN, at step {self._run.step}: "
                    f"lower the learning rate, or clip the gradients (clip_norm){self._kept()}"
                )
        return self._run.save()

    def _where(self) -> str:
        return f"epoch {self._run.epoch + 1} of {self._config.epochs}"

    def _diverged(self, what: str) -> str:
        return (
            f"{what} in {self._where()}, step {self._run.step + 1}: nothing was updated with it; "
            "lower the learning rate, clip the gradients (clip_norm), or look at the data"
            f"{self._kept()}"
        )

    def _kept(self) -> str:
        path = self._config.checkpoint_path
        there = path is not None and path.exists()
        return f"; the last good checkpoint stays at {path}" if there else ""

    def _write(
        self,
        event: str,
        loss: float,
        accuracy: float | None,
        rate: float | None = None,
        norm: float | None = None,
        seconds: float | None = None,
    ) -> None:
        if self._log is None:
            return
        epoch = self._run.epoch if event == "step" else self._run.epoch - 1
        record = LogRecord(
            event, epoch, self._run.step, loss, accuracy, rate, norm, seconds, peak_bytes()
        )
        self._log.write(record)
