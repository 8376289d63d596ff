"""What a bundle is made of: files, graph, tasks, agreement with the original."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from benchmarks.errors import run_command
from exporters.bundle import MODEL, NATIVE, PACKED, open_bundle
from exporters.list import described
from exporters.session import fastest, usable_forms


def inspected(folder: Path) -> dict[str, Any]:
    """A bundle as a JSON object; every file is checked.

    Returns:
        "run", "method", "backbone", "precision", "pooling"; "prompts", where the graph has room for them; "files", by
        name "bytes", "sha256" and "shared", how many bundles and caches have the same file on this disk; "bytes" of
        all; "form" of the answers and "forms" of a batch, each with the engines that it is verified in; "here", the
        engine that a session takes on this machine with the forms that it may use; "graph", the padded one, with
        "opset", "nodes" by operator, "inputs" and "outputs" with their shapes; "tasks" as `exporters.list` has them;
        "parity" as in bundle.json.
    """
    card = open_bundle(folder)
    here = fastest(card)
    model = onnx.load(folder / MODEL, load_external_data=False)
    about = card.model_dump(mode="json")
    return {
        **{name: about[name] for name in ("run", "method", "form", "backbone", "precision", "pooling")},
        "prompts": about["placement"],
        "files": {
            name: {"bytes": file.bytes, "sha256": file.sha256, "shared": (folder / name).stat().st_nlink}
            for name, file in card.files.items()
        },
        "bytes": sum(file.bytes for file in card.files.values()),
        "forms": {
            "padded": list(card.parity),
            **{
                form: [name for name, one in card.parity.items() if form in one.forms]
                for form, file in (("packed", PACKED), ("native", NATIVE))
                if file in card.files
            },
        },
        "here": {"engine": here, "forms": list(usable_forms(card, here))},
        "graph": {
            "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
            "nodes": dict(Counter(node.op_type for node in model.graph.node).most_common()),
            "inputs": {value.name: _shape(value) for value in model.graph.input},
            "outputs": {value.name: _shape(value) for value in model.graph.output},
        },
        "tasks": [described(task) for task in card.tasks],
        "parity": about["parity"],
    }


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def _report(folder: Path, about: dict[str, Any]) -> str:
    backbone, graph = about["backbone"], about["graph"]
    files = [
        f"  {name}: {file['bytes']:,} bytes" + (f", shared by {file['shared']}" if file["shared"] > 1 else "")
        for name, file in about["files"].items()
    ]
    nodes = ", ".join(f"{count} {name}" for name, count in graph["nodes"].items())
    prompts = about["prompts"]
    layers = None if prompts is None else prompts["layers"]
    room = "nowhere" if prompts is None else "in the input" if layers is None else f"in {len(layers)} layers"
    return "\n".join(
        [
            f"{folder}: {len(about['tasks'])} tasks, {about['bytes']:,} bytes, {about['precision']}",
            *files,
            f"encoder: {backbone['name']}, {backbone['family']}, hidden size {backbone['hidden']}",
            f"graph: room for prompts {room}; {sum(graph['nodes'].values())} nodes: {nodes}",
            f"forms: {'; '.join(_form(name, engines) for name, engines in about['forms'].items())}",
            f"here: {about['here']['engine']}, {', '.join(about['here']['forms']) or 'padded'}",
            f"tasks: {', '.join(task['task'] for task in about['tasks'])}",
            f"agreement with PyTorch: {_agreement(about['parity'])}",
        ]
    )


def _form(name: str, engines: list[str]) -> str:
    return f"{name} in {', '.join(engines) or 'no engine that was compared'}"


def _agreement(parity: dict[str, Any]) -> str:
    """Of each engine that was compared."""
    found = [
        f"{name} within {one['difference']:.1e}, {one['drop']:.2f} points lost, {one['milliseconds']:.2f} ms a row"
        for engine, padded in parity.items()
        for name, one in ((engine, padded), *((f"{engine}, {form}", padded.get(form)) for form in ("packed", "native")))
        if one is not None
    ]
    return "; ".join(found) or "not compared"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.inspect", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    about = inspected(options.bundle)
    print(json.dumps(about, ensure_ascii=False) if options.json else _report(options.bundle, about))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
