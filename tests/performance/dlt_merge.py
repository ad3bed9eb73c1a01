"""A dlt merge of JSON lines into SQLite, for any Python that has dlt: `python dlt_merge.py FOLDER INPUT`."""

import json
import sys
import time
from pathlib import Path

import dlt  # type: ignore[import-not-found]


def main() -> None:
    """Merge once and print the seconds as JSON."""
    folder, source = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.sqlalchemy(f"sqlite:///{folder / 'dlt.db'}"),
        dataset_name="bench",
        pipelines_dir=str(folder / "dlt"),
    )
    clock = time.perf_counter()
    with source.open("rb") as handle:
        pipeline.run((json.loads(line) for line in handle), table_name="t", primary_key="id", write_disposition="merge")
    print(json.dumps({"seconds": time.perf_counter() - clock, "parts": {}}))


if __name__ == "__main__":
    main()
