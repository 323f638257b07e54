"""One check for every set of arrays that must match what a session holds."""

from __future__ import annotations

from edgetune.errors import EdgetuneError, nearest, raise_all
from edgetune.runtime.session import Arrays


def check_expected_arrays(
    what: str, found: Arrays, expected: Arrays, kind: type[EdgetuneError]
) -> None:
    """Raise one `kind` naming every array that is missing, unknown, or of another shape or type."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    for name, array in found.items():
        if name not in expected:
            problems.append(f"{name} is not known{nearest(name, expected)}")
        elif array.shape != expected[name].shape or array.dtype != expected[name].dtype:
            problems.append(
                f"{name} is {array.dtype}{list(array.shape)}, expected "
                f"{expected[name].dtype}{list(expected[name].shape)}"
            )
    raise_all(kind, f"these {what} do not fit the bundle", problems)
