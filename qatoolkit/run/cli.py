"""The command line: qatoolkit new | run | status | check | plan | settings | clean | train | tokenise | report | doctor
| teacher."""

import json
import os
import shlex
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from qatoolkit import __version__
from qatoolkit.core.files import Damaged
from qatoolkit.training.stops import AGAIN, Stopped

app = typer.Typer(
    help="Which data makes a model better at what it is bad at?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
teacher = typer.Typer(help="The offline teacher: an OpenAI-compatible server over the textbook.", no_args_is_help=True)
app.add_typer(teacher, name="teacher")

INTERRUPTED = 130
PATIENCE = 2.0  # seconds without output before a command of SILENT reports that it is working
SILENT = ("status", "check", "plan", "settings", "report", "doctor")
STOPPED = "interrupted; finished work is kept, run the same command again to continue"

Profile = Annotated[str, typer.Option("--profile", help="smoke, demo, gpu, own, smollm, paper, or a YAML file")]
OfRun = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="smoke, demo, gpu, own, smollm, paper, or a YAML file; default: the profile the run was made with, "
        "else demo",
    ),
]
Name = Annotated[str | None, typer.Option("--run", help="name of the run folder (default: the profile's name)")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="seed of everything random; default: the one the run was made with, else 0")
]
Change = Annotated[
    bool, typer.Option("--change", help="open a run with a profile or seed other than the one it was made with")
]


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Bad input prints one line on stderr and exits with 2, a failed run exits with 1, a run that a
    scheduler stopped, with its state saved, with 75."""
    patience = threading.Timer(PATIENCE, lambda: print("qatoolkit: working on it …", file=sys.stderr, flush=True))
    patience.daemon = True
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] and given[0] in SILENT:
        patience.start()
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="qatoolkit") or 0
        return _fail(STOPPED, code) if code == INTERRUPTED else code
    except ValueError as error:
        return _fail(error, 1 if isinstance(error, Damaged) else 2)
    except (RuntimeError, OSError, ImportError) as error:
        return _fail(error, 1)
    except sqlite3.Error as error:
        return _fail(f"the ledger cannot be read ({error}); `qatoolkit check` says what is damaged", 1)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(STOPPED, INTERRUPTED)
    except Stopped as stop:
        return _fail(stop, AGAIN)
    except typer.Exit as exit:
        return exit.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option or argument
            return _fail(f"{error.format_message()} (see qatoolkit --help)", 2)
        raise
    finally:
        patience.cancel()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qatoolkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Which data makes a model better at what it is bad at?"""


def _fail(error, code: int) -> int:
    print(f"qatoolkit: {error}", file=sys.stderr)
    return code


def _open(profile: str | None, name: str | None, seed: int | None, change: bool = False):
    """Open a run by name; without `profile` with the one it remembers, else demo."""
    from qatoolkit.run.profiles import PROFILES
    from qatoolkit.run.remembered import remembered
    from qatoolkit.run.store import open_run, results_root

    name = name or (None if profile else "demo")
    if not (profile or name in PROFILES or remembered(results_root() / name)):
        profile = "demo"
    return open_run(name, profile=profile, seed=seed, change=change)


def _open_existing(profile: str | None, name: str | None, seed: int | None, change: bool):
    """`_open`, but ValueError if no profile is given and no run has that name."""
    from qatoolkit.run.profiles import PROFILES
    from qatoolkit.run.store import results_root

    if name and not profile and name not in PROFILES and not (results_root() / name).is_dir():
        runs = sorted(path.parent.name for path in results_root().glob("*/run.json"))
        raise ValueError(f"no run is called {name!r} in {results_root()}; there are {', '.join(runs) or 'none'}")
    return _open(profile, name, seed, change)


@app.command()
def new(folder: Annotated[Path, typer.Argument(help="the folder to make; its name is that of the study")]) -> None:
    """Make the folder of a new study: profile, notebook and data layout."""
    from qatoolkit.run.study import new_study

    for path in new_study(folder):
        print(path)
    profile = shlex.quote(f"{folder / folder.resolve().name}.yaml")
    print(f"put your data into {folder / 'data'}, then: qatoolkit plan --profile {profile}")


@app.command()
def run(
    profile: OfRun = None,
    name: Name = None,
    seed: Seed = None,
    change: Change = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NOTEBOOK", help="e.g. 03_probe; may be repeated")
    ] = None,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="run every stage at a tiny size: tiny models, a few rows, the offline teacher"),
    ] = False,
) -> None:
    """Execute the notebooks in order into results/<run>/notebooks/."""
    from qatoolkit.run import notebooks, report
    from qatoolkit.run.profiles import load_profile
    from qatoolkit.run.remembered import remember, remembered
    from qatoolkit.run.store import results_root

    os.environ["QATOOLKIT_RESULTS"] = str(results_root().resolve())  # kernels run in another folder
    if rehearse:
        from qatoolkit.run.rehearsal import write_rehearsal

        loaded = _open(profile, name, seed, change=True).profile if profile is None else load_profile(profile)
        name = f"{name or loaded.name}-rehearsal"
        profile = str(write_rehearsal(loaded, results_root() / name))
    opened = _open(profile, name, seed, change or rehearse)
    if rehearse or opened.profile.world == "textbook":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    opened.world.check()
    if opened.change:
        remember(opened)  # so that the notebooks open it with the same settings
    source = opened.source if profile or not remembered(opened.folder) else None  # None: the profile it remembers
    executed = notebooks.run_notebooks(opened, source, only or [])
    if executed and not only:
        print(f"report: {os.path.relpath(report.write_report(opened))}")


@app.command()
def status(profile: OfRun = None, name: Name = None, seed: Seed = None, change: Change = False) -> None:
    """Which stages and notebooks of a run are done."""
    from qatoolkit.run.answer_counts import describe
    from qatoolkit.run.check import is_whole
    from qatoolkit.run.notebooks import chosen

    opened = _open_existing(profile, name, seed, change)
    print(f"{opened!r} in {os.path.relpath(opened.folder)}")
    notes = opened.notes.read()
    for stage, notebook in opened.stages().items():
        manifest = opened.manifest(stage)
        changed = ", ".join(opened.changed(stage)) if manifest else ""
        state = f"to do again, {changed} changed: {notebook}" if changed else f"to do: {notebook}"
        if manifest and not changed:
            state = "; ".join([f"done in {manifest['seconds']:.1f} s", *describe(manifest)])
        if note := notes.pop(stage, None):
            state = f"incomplete, {note}; running it again requests only those: {notebook}"
        print(f"  {stage:<18} {state}")
    for stage, note in notes.items():  # stages beside the flow
        print(f"  {stage:<18} incomplete, {note}; running it again requests only those")
    names = chosen([], opened.profile.beside)
    finished = sum(is_whole(opened.folder, opened.folder / "notebooks" / f"{n}.ipynb") for n in names)
    print(f"  {finished} of {len(names)} notebooks executed")


@app.command()
def check(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="a run, or the folder of a training (default: all runs and artifacts)"),
    ] = None,
) -> None:
    """Read every file that a run or a training wrote and list those that were changed, damaged or removed since; exit
    code 1 if there are any."""
    from qatoolkit.run.check import find_damage
    from qatoolkit.run.store import results_root
    from qatoolkit.training.digests import DIGESTS, check_training

    trained = name and (Path(name) / DIGESTS).exists()
    damaged = 0
    for line in check_training(name) if trained else find_damage(results_root(), name):
        print(line)
        damaged += 1
    if damaged:
        raise typer.Exit(1)
    print(f"{name or os.path.relpath(results_root())}: every file is as it was written")


@app.command()
def plan(profile: Profile = "demo") -> None:
    """The parts that a profile uses, and its requests, tokens, money, hours and memory, before anything runs; exit code
    2 if a part is missing."""
    from qatoolkit.run.cost import describe
    from qatoolkit.run.profiles import load_profile
    from qatoolkit.run.store import LEDGER, TEACHER_LOG, results_root
    from qatoolkit.run.world import world_of

    loaded = load_profile(profile)
    print(describe(loaded, results_root() / LEDGER))
    world_of(loaded, results_root() / TEACHER_LOG).check(ask_hub=False)


@app.command()
def settings(
    group: Annotated[str | None, typer.Argument(help="a group of settings, such as boostqa")] = None,
    profile: Profile = "demo",
    as_schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema of profiles, for editors")] = False,
) -> None:
    """Every dial: its value in a profile, the values allowed, and what it does."""
    from qatoolkit.core.settings import describe_dials
    from qatoolkit.run.profiles import load_profile, schema

    if as_schema:
        print(json.dumps(schema(), indent=1))
        return
    print(describe_dials(load_profile(profile), group))


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False) -> None:
    """List the finished stages that no run points to, and remove them after asking."""
    from qatoolkit.run.clean import find_unused, remove_artifact
    from qatoolkit.run.store import results_root

    found = list(find_unused())
    for artifact in found:
        print(f"  {artifact.name}")
    if not found:
        print(f"every stage in {os.path.relpath(results_root())} belongs to a run")
        return
    if yes or typer.confirm(f"remove these {len(found)} stages?"):
        freed = sum(map(remove_artifact, found))
        print(f"removed {len(found)} stages, {freed / 2**20:,.1f} MiB")


@app.command()
def train(
    job: Annotated[Path, typer.Argument(help="a YAML file with the fields of a job")],
    plan: Annotated[bool, typer.Option("--plan", help="only print the estimate")] = False,
    tracker: Annotated[str | None, typer.Option(help="also report to tensorboard, trackio or wandb")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="start even if the memory estimate says that it does not fit")
    ] = False,
) -> None:
    """Train the job of a YAML file, on one device or, under torchrun, on several. On SIGTERM or SIGUSR1 it saves its
    state and exits with 75; run it again to continue."""
    from qatoolkit.evaluation.live_probe import live_probe
    from qatoolkit.training.train import train_file

    train_file(job, plan_only=plan, tracker_name=tracker, anyway=anyway, probe=live_probe)


@app.command()
def tokenise(
    files: Annotated[
        list[str], typer.Argument(help="QA in any form that read_seeds takes; texts in .parquet or .jsonl")
    ],
    tokenizer: Annotated[str, typer.Option(help="a Hugging Face directory or name")],
    out: Annotated[Path, typer.Option(help="the token file's folder")],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="the files contain plain text, in this column")
    ] = None,
) -> None:
    """Write QA files, or texts with --text, as a token file that a training job reads."""
    from qatoolkit.core.prompt_format import needs_choices
    from qatoolkit.seeds.read import read_seeds
    from qatoolkit.training.hub import load_tokenizer
    from qatoolkit.training.tokens import qa_documents, text_documents, write_tokens

    if text:
        documents = text_documents(files, text)
    else:
        table, rejects = read_seeds(files)
        if len(rejects):
            print(f"{len(rejects):,} rows could not be read: {rejects['reason'].value_counts().to_dict()}")
        if table.empty:
            raise ValueError(f"no question in {', '.join(files)}; for plain text give its column with --text")
        incomplete = table["choices"].isna() & table["question"].map(needs_choices)
        if incomplete.any():
            print(f"{incomplete.sum():,} questions refer to choices but have none; they are left out")
        documents = qa_documents(table[~incomplete])
    print(write_tokens(documents, load_tokenizer(tokenizer), out))


@app.command()
def report(profile: OfRun = None, name: Name = None, seed: Seed = None, change: Change = False) -> None:
    """Write one self-contained HTML page of a run's figures and tables."""
    from qatoolkit.run.report import write_report

    print(os.path.relpath(write_report(_open_existing(profile, name, seed, change))))


@app.command()
def doctor() -> None:
    """What this machine has, and whether anything is missing."""
    from qatoolkit.run.doctor import checks

    found = checks()
    for finding in found:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.found}")
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


@teacher.command()
def serve(
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8321,
    entities: Annotated[int | None, typer.Option(help="rows per discipline it writes about (default: all)")] = None,
    entities_zh: Annotated[int | None, typer.Option(help="the same in Chinese")] = None,
    relations: Annotated[int | None, typer.Option(help="columns per table it writes about (default: all)")] = None,
    families: Annotated[int | None, typer.Option(help="kinds of formula problem (default: all)")] = None,
    faults: Annotated[str, typer.Option(help="e.g. rate_limit=0.05,server_error=0.02,latency=0.2")] = "",
    log: Annotated[Path | None, typer.Option(help="append one JSON line per answered request")] = None,
    leash: Annotated[bool, typer.Option("--leash", help="end when standard input closes")] = False,
) -> None:
    """Serve until interrupted."""
    from qatoolkit.textbook import server
    from qatoolkit.textbook.settings import TextbookSettings

    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: a port is a number from 0 to 65535")
    textbook = TextbookSettings(entities=entities, families=families, entities_zh=entities_zh, relations=relations)
    server.serve(port, settings=textbook, faults=server.Faults.parse(faults), log=log, leash=leash)


@teacher.callback()
def _teacher() -> None:
    """The offline teacher."""


if __name__ == "__main__":
    sys.exit(main())
