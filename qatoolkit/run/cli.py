"""The command line: qatoolkit run | status | plan | settings | clean | train | tokenise | report | doctor | teacher."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from qatoolkit.training.stops import AGAIN, Stopped

app = typer.Typer(
    help="Which data makes a model better at what it is bad at?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
teacher = typer.Typer(help="The offline teacher: an OpenAI-compatible server over the textbook.", no_args_is_help=True)
app.add_typer(teacher, name="teacher")

INTERRUPTED = 130
STOPPED = "interrupted; what was finished is kept, run the same command to go on"

Profile = Annotated[str, typer.Option("--profile", help="smoke, demo, gpu, paper, or a YAML file")]
Name = Annotated[str | None, typer.Option("--run", help="name of the run folder (default: the profile's name)")]
Seed = Annotated[int, typer.Option("--seed", help="of everything random in the run")]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; bad input ends in one clear line on stderr and exit code 2, a failed run in exit code 1, one
    that a scheduler stopped, with its state saved, in exit code 75."""
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="qatoolkit") or 0
        return _failed(STOPPED, code) if code == INTERRUPTED else code
    except ValueError as error:
        return _failed(error, 2)
    except (RuntimeError, OSError, ImportError) as error:
        return _failed(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(STOPPED, INTERRUPTED)
    except Stopped as stop:
        return _failed(stop, AGAIN)
    except typer.Exit as exit:
        return exit.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option or argument
            return _failed(f"{error.format_message()} (see qatoolkit --help)", 2)
        raise


def _failed(error, code: int) -> int:
    print(f"qatoolkit: {error}", file=sys.stderr)
    return code


def _open(profile: str, name: str | None, seed: int):
    from qatoolkit.run.store import open_run

    return open_run(name, profile=profile, seed=seed)


@app.command()
def run(
    profile: Profile = "demo",
    name: Name = None,
    seed: Seed = 0,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NOTEBOOK", help="e.g. 03_probe; may be repeated")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="walk every stage in small: tiny models, a few rows, the offline teacher")
    ] = False,
) -> None:
    """Execute the notebooks in order into results/<run>/notebooks/."""
    from qatoolkit.run import notebooks, report
    from qatoolkit.run.profiles import load_profile
    from qatoolkit.run.store import results_root

    os.environ["QATOOLKIT_RESULTS"] = str(results_root().resolve())  # the kernels work in another folder
    if rehearse:
        from qatoolkit.run.rehearsal import write_rehearsal

        loaded = load_profile(profile)
        profile = str(write_rehearsal(loaded, results_root() / f"{name or loaded.name}-rehearsal"))
        name = f"{name or loaded.name}-rehearsal"
    opened = _open(profile, name, seed)
    if rehearse or opened.profile.world == "textbook":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    opened.world.check()
    named = str(Path(profile).resolve()) if Path(profile).suffix in (".yaml", ".yml") else profile
    executed = notebooks.run_notebooks(opened, named, only or [])
    if executed and not only:
        print(f"report: {os.path.relpath(report.write(opened))}")


@app.command()
def status(profile: Profile = "demo", name: Name = None, seed: Seed = 0) -> None:
    """Which stages and notebooks of a run are done."""
    from qatoolkit.run.notebooks import ORDER

    opened = _open(profile, name, seed)
    print(f"{opened!r} in {os.path.relpath(opened.folder)}")
    for stage, notebook in opened.stages().items():
        manifest = opened.manifest(stage)
        changed = ", ".join(opened.changed(stage)) if manifest else ""
        state = f"to do again, {changed} changed: {notebook}" if changed else f"to do: {notebook}"
        if manifest and not changed:
            state = f"done in {manifest['seconds']:.1f} s"
        print(f"  {stage:<18} {state}")
    finished = sum((opened.folder / "notebooks" / f"{n}.ipynb").exists() for n in ORDER)
    print(f"  {finished} of {len(ORDER)} notebooks executed")


@app.command()
def plan(profile: Profile = "demo") -> None:
    """What a profile stands on, and its requests, tokens, money, hours and memory, before it starts; exit code 2 where a
    part is missing."""
    from qatoolkit.run.cost import describe
    from qatoolkit.run.profiles import load_profile
    from qatoolkit.run.store import results_root
    from qatoolkit.run.world import world_of

    loaded = load_profile(profile)
    print(describe(loaded, results_root() / "ledger.sqlite"))
    world_of(loaded, results_root() / "teacher.log.jsonl").require()


@app.command()
def settings(
    group: Annotated[str | None, typer.Argument(help="a group of settings, such as boostqa")] = None,
    profile: Profile = "demo",
    as_schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema of profiles, for editors")] = False,
) -> None:
    """Every dial with its value in a profile, what is allowed, and what it means."""
    from qatoolkit.core.settings import describe_dials
    from qatoolkit.run.profiles import load_profile, schema

    if as_schema:
        print(json.dumps(schema(), indent=1))
        return
    print(describe_dials(load_profile(profile), group))


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
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
    plan: Annotated[bool, typer.Option("--plan", help="only print what the run takes")] = False,
    tracker: Annotated[str | None, typer.Option(help="also report to tensorboard, trackio or wandb")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="start although the memory estimate says no")] = False,
) -> None:
    """Train the job of a YAML file, on one device or, under torchrun, on several. SIGTERM and SIGUSR1 save its state and
    end it with exit code 75: run again, it goes on."""
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
        str | None, typer.Option(metavar="COLUMN", help="the files hold running text in this column")
    ] = None,
) -> None:
    """Write QA files, or texts with --text, as a token file that a training job reads."""
    from qatoolkit.core.prompt_format import lacks_choices
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
            raise ValueError(f"no question in {', '.join(files)}; for running text name its column with --text")
        lacking = table["choices"].isna() & table["question"].map(lacks_choices)
        if lacking.any():
            print(f"{lacking.sum():,} questions speak of choices and have none; they are left out")
        documents = qa_documents(table[~lacking])
    print(write_tokens(documents, load_tokenizer(tokenizer), out))


@app.command()
def report(profile: Profile = "demo", name: Name = None, seed: Seed = 0) -> None:
    """Write one self-contained HTML page of a run's figures and tables."""
    from qatoolkit.run.report import write

    print(os.path.relpath(write(_open(profile, name, seed))))


@app.command()
def doctor() -> None:
    """What this machine has and whether anything is missing."""
    from qatoolkit.run.doctor import findings

    found = findings()
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
    held = TextbookSettings(entities=entities, families=families, entities_zh=entities_zh, relations=relations)
    server.serve(port, settings=held, faults=server.Faults.parse(faults), log=log, leash=leash)


@teacher.callback()
def _teacher() -> None:
    """The offline teacher."""


if __name__ == "__main__":
    sys.exit(main())
