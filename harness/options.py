"""The command line of a run: its options, and the command that repeats a run."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import PolypromptError
from benchmarks.own.python import is_of_others, refuse_python
from harness.config import RunConfig, before, make_config, read_settings
from harness.methods import METHODS

OPTIONS = {
    "suite": "suites to learn together, separated by commas",
    "tasks": "only these of their tasks",
    "languages": "evaluate only in these languages (BCP-47)",
    "train_languages": "train in these languages, as far as a task has rows to train on in them, or in all; default: "
    "the one that each task is usually trained in (English for most)",
    "task_file": "files that declare tasks of your own (docs/own-tasks.md); without --suite: all of them",
    "backbone": "hub id, local folder, or minilm-l6-en, e5-small-multilingual",
    "method": "; ".join(f"{method.name}: {method.about}" for method in METHODS.values()),
    "prompt_length": "slots a layer",
    "prompt_layers": 'layers with a prompt: "all", "top:4", "bottom:2", "6-11", "0,2,4-5"',
    "init": "how the prompt begins: kv, normal, zero-gated",
    "positions": "where those of the real tokens begin: own (at 0) or shifted (behind the prompt, as in peft)",
    "start_from": "begin with the prompt and the heads of this folder: a run, or made by harness.interchange",
    "prompt_dropout": "dropout on the prompt",
    "sharing": "how tasks share a prompt: shared, specialise (then each goes on alone), low-rank (a small part a task, "
    "and a language where several are trained), separate (one each)",
    "rank": "of the small parts of --sharing low-rank",
    "lora_rank": "of the additions of --method lora",
    "lora_alpha": "the additions are scaled by this over their rank",
    "pooling": "what linear sequence heads read: cls or mean",
    "head": "how sequence tasks are answered: linear; pooler (frozen, then linear); verbaliser (label words at a mask, "
    "nothing trained but the prompt)",
    "head_layers": "what the heads of tags and answers read of each piece: what the last layer makes of it (last), or "
    "also what enters each layer, side by side (all)",
    "sampling": "task mixture: proportional, square-root, temperature, uniform",
    "temperature": "of --sampling temperature",
    "epochs": "passes over all training rows; default: the method's",
    "max_steps": "stop after so many steps; 0: only predict and score",
    "splits": "splits to predict, such as dev,test; default: the reported one of each task",
    "batch": "examples a step",
    "tokens_per_batch": "in place of --batch: as many examples a step as fit into so many tokens with padding; epochs, "
    "rates and the mixture of tasks then count examples, whatever the steps hold",
    "cache_gb": "gigabytes of disk for what the layers below the first prompt make of rows, computed once; 0: no cache",
    "micro_batch": "at most so many examples of a batch in one pass, where memory is small",
    "patience": "stop after so many epochs that bring nothing better on the rows that select",
    "learning_rate": "of AdamW; of several, such as 5e-3,1e-2, the one that selects best; default: the method's",
    "head_learning_rate": "of the heads alone; default: that of all",
    "decay": "of the learning rate: linear (to zero), exponential (0.95 an epoch)",
    "warmup": "share of the training over which the learning rate rises before it decays, such as 0.1",
    "selection": "what chooses the epoch and the rate: held-out (a part of train), paper (the reported rows), last",
    "shots": "train on so many rows a task and language, and select on as many others",
    "shots_seed": "of the choice of those rows",
    "max_length": "pieces a row; default: each task's own",
    "weight_decay": "of AdamW; default: the method's",
    "max_train": "at most so many training examples a task and language",
    "max_eval": "at most so many examples a task and language; such scores are marked",
    "precision": "auto, fp32 or bf16",
    "engine": "what computes a frozen encoder: own, or transformers (slower)",
    "inference": "what computes a frozen encoder where nothing is trained through it (evaluation, the cache of lower "
    "layers): own; openvino, with the extra `cpu`; auto: another one than own only where it is verified and clearly "
    "faster on rows of this run",
    "decode": "how tags are chosen: greedy (the best of each word, as published numbers are), viterbi (the best "
    "sequence of BIO or IOBES tags that can be)",
    "seed": "of initialisation, order and dropout",
    "data_dir": "folder with the official files; without it: the hub",
    "checkpoint_seconds": "time between checkpoints",
    "tracker": "shows the run while it goes on: auto (TensorBoard where it is installed), tensorboard, wandb, mlflow, "
    "trackio, none",
    "out": "folder of runs",
    "name": "name of this run's folder; default: made from the settings",
}
LISTS = ("suite", "tasks", "languages", "train_languages", "task_file", "splits", "learning_rate")
FLAGS = ("config", "preset", "list_presets", "seeds", "at_once", "resume", "list", "json")
SWITCHES = {
    "checkpoint_activations": "compute hidden states again on the way back: less memory, more time",
    "shard_backbone": "divide a frozen backbone's weights among the processes (FSDP), where one cannot hold them",
    "retrieval_prompt": "give retrieval, for which nothing trains, the prompt that the other tasks share",
    "reparameterise": "make the prompt by an MLP, which is folded away afterwards",
    "skip_missing": "go on without the tasks and languages whose files are missing",
}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line: flags of the program itself, and settings of the run."""
    parser = argparse.ArgumentParser(prog="python -m harness.run", description=__doc__)
    add_settings(parser)
    parser.add_argument("--preset", metavar="NAME", help="released hyper-parameters; other settings go before them")
    parser.add_argument("--list-presets", action="store_true", help="show them with the published numbers, then stop")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="N runs, each with the next seed: side by side"
    )
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="of --seeds: a process each, N at a time, in place of one"
    )
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; the command line goes before them")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same settings")
    parser.add_argument("--list", action="store_true", help="show suites, tasks, languages and files, then stop")
    parser.add_argument("--json", action="store_true", help="print results (or the list) as JSON")
    return given(parser, arguments, FLAGS)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting of a run."""
    for name, text in OPTIONS.items():
        default = RunConfig.model_fields[name].default
        bare = default in (None, []) or "default" in text
        shown = "" if bare else f" (default: {getattr(default, 'value', default)})"
        flag = "--" + name.replace("_", "-")
        action = "append" if name in LISTS else "store"
        shown = text.replace("%", "%%") + shown
        parser.add_argument(flag, dest=name, action=action, default=argparse.SUPPRESS, help=shown)
    for name, text in SWITCHES.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--files", action="append", metavar="TASK.SPLIT=FILE,...", help="read these files instead")
    parser.add_argument("--label-words", action="append", metavar="TASK.LABEL=WORD", help="what --head verbaliser says")


def given(
    parser: argparse.ArgumentParser, arguments: list[str], names: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """What a command line says.

    Args:
        parser: with `add_settings`. arguments: words. names: of the flags of the program itself.

    Returns:
        These flags, and the settings of a run that were given.
    """
    found = vars(parser.parse_args(arguments))
    flags = argparse.Namespace(**{name: found.pop(name) for name in names})
    places = dict(_file_option(text) for text in found.pop("files") or [])
    words: dict[str, dict[str, str]] = {}
    for text in found.pop("label_words") or []:
        task, label, word = _word_option(text)
        words.setdefault(task, {})[label] = word
    settings = {name: ",".join(value).split(",") if name in LISTS else value for name, value in found.items()}
    return flags, settings | ({"files": places} if places else {}) | ({"label_words": words} if words else {})


def with_file(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the command line on top of those of a file (`--config`).

    Raises:
        PolypromptError: the file is absent or wrong, or it is not the user's own and names Python to run; names it.
    """
    if path is None:
        return settings
    from_file = read_settings(path)
    asked = make_config(from_file, str(path))  # so that an error names the file
    if is_of_others(path) and "task_file" not in settings:
        refuse_python(asked.task_file, path)
    return before(from_file, settings)


def _file_option(text: str) -> tuple[str, list[str]]:
    place, _, files = text.partition("=")
    if not files:
        raise PolypromptError(f"--files {text}: write TASK.SPLIT=FILE, for instance xquad.train=squad/train-v1.1.json")
    return place, files.split(",")


def _word_option(text: str) -> tuple[str, str, str]:
    place, _, word = text.rpartition("=")
    task, _, label = place.partition(".")
    if not (task and label and word):
        raise PolypromptError(f"--label-words {text}: write TASK.LABEL=WORD, for instance sst2.negative=bad")
    return task, label, word


def command_line(config: RunConfig, processes: int = 1) -> str:
    """The command that repeats a run."""
    start = ["python"] if processes == 1 else ["torchrun", "--nproc-per-node", str(processes)]
    words = [*start, "-m", "harness.run"]
    hashes = {"task_file_sha256", "start_from_sha256"}
    for name, value in config.model_dump(mode="json", exclude_defaults=True, exclude_none=True, exclude=hashes).items():
        flag = "--" + name.replace("_", "-")
        if name == "files":
            words += [word for place, files in value.items() for word in (flag, f"{place}={','.join(files)}")]
        elif name == "label_words":
            said = [f"{task}.{label}={word}" for task, labels in value.items() for label, word in labels.items()]
            words += [word for option in said for word in (flag, option)]
        elif value is True:
            words.append(flag)
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)
