"""The memory guard in a real cgroup: the kernel kills what it does not stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetune.files.checkpoint import read_checkpoint
from edgetune.guards.cgroups import memory_cgroups

STEP_MIB = 48

# A session whose step takes 48 MiB for a moment, planned as such; argv: guarded or not, checkpoint.
PROGRAM = f"""
import dataclasses, sys
import numpy as np
from pathlib import Path
from edgetune.guards import Limits, Watch, open_watch
from edgetune.guards.memory_room import memory_files
from edgetune.runtime.trainer import Trainer, TrainerConfig
from tests.device.fake_session import FakeSession, make_dataset, make_manifest

class Takes(FakeSession):
    def accumulate(self, batch):
        np.ones({STEP_MIB} * 2**20, np.uint8)
        return super().accumulate(batch)

now = memory_files().process().resident_bytes
made = make_manifest()
cost = dataclasses.replace(made.plan.cost, peak_bytes=now + {STEP_MIB} * 2**20)
made = dataclasses.replace(made, plan=dataclasses.replace(made.plan, cost=cost))
session = Takes(made)
trainer_config = TrainerConfig(checkpoint_path=Path(sys.argv[2]), progress=False)
with open_watch(Limits(), lambda: session.manifest, 0) as watch:
    watch = watch if sys.argv[1] == "guarded" else Watch()
    result = Trainer(session, trainer_config, watch).fit(make_dataset())
print(result.stopped_by.budget if result.stopped_by else "done")
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup below this process's own, removed afterwards; skips where none can be made."""
    groups = memory_cgroups()
    if not groups:
        pytest.skip("no memory cgroup is mounted here")
    folder = groups[0].folder / f"edgetune-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if not (folder / groups[0].limit).exists():
            pytest.skip("the memory controller is not on for new groups here")
        yield folder
    finally:
        folder.rmdir()


def run(group: Path, how: str, checkpoint: Path, limit_mib: int) -> tuple[int, str]:
    (group / memory_cgroups()[0].limit).write_text(str(limit_mib * 2**20))
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        ["sh", "-c", enter, "sh", sys.executable, "-c", PROGRAM, how, str(checkpoint)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout.strip() or done.stderr[-500:]


def test_a_step_that_the_cgroup_has_no_room_for_is_not_begun(group: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert run(group, "unguarded", path, 60)[0] == -signal.SIGKILL
    assert not path.exists()
    assert run(group, "guarded", path, 60) == (0, "memory")
    assert read_checkpoint(path).step == 0


def test_a_step_that_the_cgroup_has_room_for_is_done(group: Path, tmp_path: Path) -> None:
    assert run(group, "guarded", tmp_path / "run", 256) == (0, "done")
    assert read_checkpoint(tmp_path / "run").step == 3
