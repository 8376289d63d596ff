"""The JSON Schema of results.json, `python -m benchmarks.schema`: for who writes one by hand or by another harness."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.errors import run_command
from benchmarks.results import Results


def results_schema() -> dict[str, Any]:
    """The schema of the current version, JSON Schema 2020-12."""
    schema = Results.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "results.json", **schema}


def main() -> int:
    """Print it."""
    print(json.dumps(results_schema(), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
