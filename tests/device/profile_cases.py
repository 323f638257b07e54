"""Device profiles as text: a sound one, and edits of it that are wrong."""

from __future__ import annotations

import pytest

SOUND = """\
id = "bench"
name = "Bench board"
cpu = "4x Arm Cortex-A72"
cores = 4
power_scope = "wall"
meter = "ina3221"
notes = "a board of the tests"
total_memory_bytes = { value = 1000, kind = "vendor", source = "data sheet", date = "2024" }
usable_memory_bytes = { value = 900, kind = "measured", source = "free", date = "2024-01" }
dispatch_seconds = { value = 1e-5, kind = "measured", source = "trace", date = "2024-01-31" }
idle_watts = { value = 2, kind = "measured", source = "plug", date = "2024-01" }
load_watts = { value = 6.5, kind = "measured", source = "plug", date = "2024-01" }

[bandwidth_bytes_per_second]
value = 5e9
kind = "derived"
source = "memcpy"
date = "2024-01"
derivation = "2 x 2.5e9: read and written"

[flops_per_second]
peak = { value = 50e9, kind = "measured", source = "cpufp", date = "2024-01" }
matmul = { value = 35e9, kind = "derived", source = "sgemm", date = "2024-01", \
derived_from = "flops_per_second.peak", factor = 0.7 }
"""
MINIMAL = 'id = "tiny"\nname = "Tiny"\ncpu = "1x"\ncores = 1\n'


def edited(old: str, new: str, text: str = SOUND) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once, so that the case edits what it names"
    return text.replace(old, new)


IDLE = 'idle_watts = { value = 2, kind = "measured", source = "plug", date = "2024-01" }'
BAD_FILES = [
    pytest.param('id = "bench"\n', "", "id: found nothing, expected text", id="missing id"),
    pytest.param('cpu = "4x Arm Cortex-A72"', "cpu = 4", "cpu: found 4, expected text", id="text"),
    pytest.param(
        "cores = 4",
        "cores = true",
        "cores: found True, expected a whole number greater than zero",
        id="cores boolean",
    ),
    pytest.param("cores = 4\n", "", "cores: found nothing, expected a whole", id="missing cores"),
    pytest.param('"ina3221"', '" "', "meter: found ' ', expected text", id="blank meter"),
    pytest.param(
        'power_scope = "wall"',
        'power_scope = "rack"',
        "power_scope: found 'rack', expected one of module, board, wall",
        id="unknown scope",
    ),
    pytest.param(
        'power_scope = "wall"\n',
        "",
        "power_scope: found nothing, expected one of module, board, wall, because the file has "
        "idle_watts and load_watts",
        id="power without scope",
    ),
    pytest.param(
        "idle_watts =",
        "idle_watt =",
        "idle_watt: found an unknown key, expected one of ",
        id="unknown key",
    ),
    pytest.param(
        "matmul =",
        "matmuls =",
        "flops_per_second.matmuls: found an unknown key, expected one of convolution, pointwise, "
        "depthwise, matmul, transpose, elementwise, prefix_convolution, prefix_pointwise, "
        "prefix_depthwise, int8, update, peak; the nearest names are matmul",
        id="unknown operator class",
    ),
    pytest.param(
        IDLE,
        "idle_watts = 2",
        "idle_watts: found 2, expected a table { value, kind, source, date }",
        id="bare number",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2, ", ""),
        "idle_watts.value: found nothing, expected a finite number greater than zero",
        id="missing value",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", 'value = "2"'),
        "idle_watts.value: found '2', expected a finite number",
        id="value as text",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = 0"),
        "idle_watts.value: found 0, expected a finite number greater than zero",
        id="zero",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = -2"),
        "idle_watts.value: found -2, expected a finite number greater than zero",
        id="negative",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("value = 2", "value = nan"),
        "idle_watts.value: found nan, expected a finite number",
        id="not a number",
    ),
    pytest.param(
        IDLE,
        IDLE.replace('"measured"', '"guessed"'),
        "idle_watts.kind: found 'guessed', expected one of measured, vendor, derived",
        id="unknown kind",
    ),
    pytest.param(
        IDLE,
        IDLE.replace(', source = "plug"', ""),
        "idle_watts.source: found nothing, expected text",
        id="missing source",
    ),
    pytest.param(
        IDLE,
        IDLE.replace(', date = "2024-01"', ""),
        "idle_watts.date: found nothing, expected text YYYY, YYYY-MM or YYYY-MM-DD",
        id="missing date",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("2024-01", "2024-13"),
        "idle_watts.date: found '2024-13', expected text YYYY",
        id="month 13",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("date =", "unit = 3, date ="),
        "idle_watts.unit: found an unknown key",
        id="unknown key of a number",
    ),
    pytest.param(
        "value = 900",
        "value = 1001",
        "usable_memory_bytes: found 1001, expected at most total_memory_bytes = 1000",
        id="usable above total",
    ),
    pytest.param(
        "value = 6.5",
        "value = 1.5",
        "idle_watts: found 2, expected at most load_watts = 1.5",
        id="load below idle",
    ),
    pytest.param(
        "value = 35e9",
        "value = 34e9",
        "flops_per_second.matmul.value: found 34000000000.0, expected 3.5e+10 = "
        "0.7 x flops_per_second.peak",
        id="not what it is derived from",
    ),
    pytest.param(
        "value = 5e9",
        "value = 6e9",
        "bandwidth_bytes_per_second.value: found 6000000000.0, expected 5000000000 = 2 x 2.5e9",
        id="not its derivation",
    ),
    pytest.param(
        "2 x 2.5e9: read and written",
        "read and written",
        "bandwidth_bytes_per_second.derivation: found 'read and written', expected a product",
        id="derivation without product",
    ),
    pytest.param(
        'derivation = "2 x 2.5e9: read and written"',
        "",
        "bandwidth_bytes_per_second: found none of them, expected either derived_from and factor",
        id="derived from nothing",
    ),
    pytest.param(
        ", factor = 0.7",
        "",
        "flops_per_second.matmul: found derived_from, expected either derived_from and factor",
        id="missing factor",
    ),
    pytest.param(
        "factor = 0.7",
        "factor = -0.7",
        "flops_per_second.matmul.factor: found -0.7, expected a finite number greater than zero",
        id="negative factor",
    ),
    pytest.param(
        'derived_from = "flops_per_second.peak"',
        'derived_from = "flops_per_second.matmul"',
        "flops_per_second.matmul.derived_from: found 'flops_per_second.matmul', expected another "
        "number of this file",
        id="derived from itself",
    ),
    pytest.param(
        IDLE,
        IDLE.replace("date =", "factor = 2, date ="),
        "idle_watts.factor: found 2, expected no such key in a number of kind measured",
        id="measured with factor",
    ),
    pytest.param(
        'derivation = "2 x 2.5e9: read and written"',
        'derivation = "2 x 2.5e9 / 0: read and written"',
        "bandwidth_bytes_per_second.derivation: found '2 x 2.5e9 / 0: read and written', expected "
        "a product, quotient or sum above zero",
        id="division by zero",
    ),
    pytest.param(
        IDLE,
        f"{IDLE}\npeak_bandwidth_bytes_per_second = "
        '{ value = 4e9, kind = "vendor", source = "data sheet", date = "2024" }',
        "bandwidth_bytes_per_second: found 5e+09, expected at most "
        "peak_bandwidth_bytes_per_second = 4e+09",
        id="bandwidth above its peak",
    ),
    pytest.param(
        'notes = "a board of the tests"',
        "like = 4",
        "like: found 4, expected text",
        id="like no text",
    ),
]

BEYOND_SCHEMA = {
    "not a number",
    "usable above total",
    "bandwidth above its peak",
    "load below idle",
    "not what it is derived from",
    "not its derivation",
    "derived from itself",
    "division by zero",
}
"""What no JSON Schema can see: NaN (JSON has none), and anything between two numbers."""
