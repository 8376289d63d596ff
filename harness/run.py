"""`python -m harness.run`: learn the tasks of some suites with one prompt, score them, leave a run folder."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from pydantic import TypeAdapter

from benchmarks.errors import PolypromptError
from benchmarks.results import Manifest, Results, read_model
from harness.config import before, make_config
from harness.data import chosen_suites
from harness.launcher import shards, together, world
from harness.listing import listing, listing_table
from harness.options import parse, with_file
from harness.presets import find_preset, presets, presets_table
from harness.report import averages_table, score_table
from harness.screen import Screen
from harness.seeds import all_of, seeds_table, with_seeds


def main() -> int:
    """The command line."""
    flags, settings = parse(sys.argv[1:])
    settings = with_file(flags.config, settings)
    if flags.preset is not None:
        released = find_preset(flags.preset).settings
        settings = before({key.replace("-", "_"): value for key, value in released.items()}, settings)
    if flags.list_presets:
        shown = [asdict(preset) for preset in presets().values()]
        print(json.dumps(shown, indent=2) if flags.json else presets_table())
        return 0
    if shards():
        settings["shard_backbone"] = True
    config = make_config(settings, "command line")
    if flags.seeds < 1:
        raise PolypromptError(f"--seeds {flags.seeds}: at least 1 is needed")
    if flags.at_once < 1:
        raise PolypromptError(f"--at-once {flags.at_once}: at least 1 is needed")
    if flags.at_once > 1 and world() > 1:
        raise PolypromptError("--at-once: the processes of a launcher work on one run; leave one of the two out")
    if flags.list:
        records = listing(config.data_dir, config.task_file)
        print(json.dumps(records, indent=2, ensure_ascii=False) if flags.json else listing_table(records))
        return 0
    # They load torch, which takes seconds: not for what was shown above.
    from transformers.utils import logging

    from harness.execute import execute

    logging.set_verbosity_error()
    screen = Screen()
    configs = with_seeds(config, flags.seeds) if flags.seeds > 1 else [config]
    done: list[Results] = []
    try:
        if len(configs) > 1 and world() == 1:
            done += all_of(configs, flags.at_once, flags.resume, screen)
        else:
            for one in configs:
                done.append(execute(one, flags.resume, screen))
    except KeyboardInterrupt:
        folder = configs[0].folder if len(configs) == 1 else configs[0].out
        screen.say(f"interrupted; what was computed is in {folder}; the same command with --resume goes on")
        return 130
    if flags.json:
        single = len(done) == 1
        print(done[0].model_dump_json(indent=2) if single else TypeAdapter(list[Results]).dump_json(done).decode())
        return 0
    print(score_table(done[0].records) if len(done) == 1 else seeds_table(done))
    if len(done) == 1 and done[0].records:
        trained = read_model(config.folder / "manifest.json", Manifest).trained
        averages = averages_table(chosen_suites(config), done[0].records, trained)
        if averages:
            print(f"\n{averages}")
    print("\nrun folder: " + " ".join(str(one.folder) for one in configs))
    return 0


if __name__ == "__main__":
    sys.exit(together(main))
