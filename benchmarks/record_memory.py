"""Memory of the record list of LUPerson: as arrays (what `LUPerson.records` gives) and as a list of objects.

python benchmarks/record_memory.py                  # 4,180,243 records, LUPerson's number
python benchmarks/record_memory.py --records 10683716    # LUPerson-NL's
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from dapg.core.types import Record
from dapg.data.compact import CompactRecords


def records(count):
    """Keys as LUPerson's: country, city, video, image."""
    for number in range(count):
        yield Record(
            f"{number % 40:02d}_{number % 70:02d}_{number % 9999:04d}_{number:08d}", number % 200_000, number % 46_260
        )


def resident():
    """Resident memory of this process in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(kind, count):
    before, start = resident(), time.process_time()
    held = CompactRecords(records(count)) if kind == "arrays" else list(records(count))
    made, after = time.process_time() - start, resident()
    start = time.process_time()
    for place in range(0, count, max(1, count // 10_000)):
        held[place]
    return {
        "kind": kind,
        "records": len(held),
        "MiB": round((after - before) / 2**20, 1),
        "bytes_a_record": round((after - before) / count, 1),
        "cpu_seconds_to_build": round(made, 1),
        "microseconds_to_read_one": round(1e6 * (time.process_time() - start) / 10_000, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=4_180_243)
    parser.add_argument("--kind", choices=("arrays", "list"), help="measure one in this process")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options.kind, options.records)))
        return
    for kind in ("arrays", "list"):  # each in a process of its own: memory that was freed is not given back
        subprocess.run([sys.executable, __file__, "--kind", kind, "--records", str(options.records)], check=True)


if __name__ == "__main__":
    main()
