"""Makes the tests find what they import, whichever environment runs them.

The checkout goes to the end of sys.path: `tests` comes from it, and edgetune only where it is not
installed. In the device environment the installed wheel is what is tested. (`python -m pytest`
would put the checkout first; run `pytest`.)
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "exporters")]

collect_ignore = [] if find_spec("torch") else ["export"]  # of the workstation alone
