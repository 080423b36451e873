"""The command line: qatoolkit run | status | plan | report | tokenise | doctor | teacher."""

import argparse
import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Entry point; bad input ends in one clear line on stderr and exit code 2, a failed run in exit code 1."""
    parser = argparse.ArgumentParser(
        prog="qatoolkit", description="Which data makes a model better at what it is bad at?"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_status(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_tokenise(commands)
    _add_doctor(commands)
    _add_teacher(commands)
    arguments = parser.parse_args(argv)
    try:
        return arguments.call(arguments) or 0
    except ValueError as error:
        print(f"qatoolkit: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"qatoolkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "qatoolkit: interrupted; what was finished is kept, run the same command to go on",
            file=sys.stderr,
        )
        return 130


def _add_run_options(parser) -> None:
    parser.add_argument(
        "--profile", default="demo", help="smoke, demo, gpu, paper, or a YAML file (default %(default)s)"
    )
    parser.add_argument("--run", dest="name", help="name of the run folder (default: the profile's name)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")


def _open(arguments):
    from qatoolkit.store import open_run

    return open_run(arguments.name, profile=arguments.profile, seed=arguments.seed)


def _add_run(commands) -> None:
    parser = commands.add_parser("run", help="execute the notebooks in order into results/<run>/notebooks/")
    _add_run_options(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NOTEBOOK", help="e.g. 03_probe; may be repeated"
    )
    parser.set_defaults(call=_run)


def _run(arguments) -> None:
    from qatoolkit import report, runner
    from qatoolkit.store import results_root

    os.environ["QATOOLKIT_RESULTS"] = str(results_root().resolve())  # the kernels work in another folder
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run = _open(arguments)
    profile = arguments.profile
    profile = str(Path(profile).resolve()) if Path(profile).suffix in (".yaml", ".yml") else profile
    executed = runner.run_notebooks(run, profile, arguments.only)
    if executed and not arguments.only:
        print(f"report: {os.path.relpath(report.write(run))}")


def _add_status(commands) -> None:
    parser = commands.add_parser("status", help="which stages and notebooks of a run are done")
    _add_run_options(parser)
    parser.set_defaults(call=_status)


def _status(arguments) -> None:
    from qatoolkit.runner import ORDER
    from qatoolkit.store import NOTEBOOKS

    run = _open(arguments)
    print(f"{run!r} in {os.path.relpath(run.folder)}")
    for stage, notebook in NOTEBOOKS.items():
        manifest = run.manifest(stage)
        changed = ", ".join(run.changed(stage)) if manifest else ""
        state = f"to do again, {changed} changed: {notebook}" if changed else f"to do: {notebook}"
        if manifest and not changed:
            state = f"done in {manifest['seconds']:.1f} s"
        print(f"  {stage:<12} {state}")
    finished = sum((run.folder / "notebooks" / f"{name}.ipynb").exists() for name in ORDER)
    print(f"  {finished} of {len(ORDER)} notebooks executed")


def _add_plan(commands) -> None:
    parser = commands.add_parser(
        "plan", help="requests, tokens, money, hours and memory of a profile, before it starts"
    )
    parser.add_argument(
        "--profile", default="demo", help="smoke, demo, gpu, paper, or a YAML file (default %(default)s)"
    )
    parser.set_defaults(call=_plan)


def _plan(arguments) -> None:
    from qatoolkit.estimate import ARMS, QA_TOKENS, estimate, training
    from qatoolkit.ledger import Ledger
    from qatoolkit.profiles import load_profile
    from qatoolkit.store import results_root

    profile, path = load_profile(arguments.profile), results_root() / "ledger.sqlite"
    if path.exists():
        with Ledger(path) as ledger:
            table = estimate(profile, ledger)
    else:
        table = estimate(profile)
    shown = {"usd": "${:,.2f}".format, "hours": "{:,.1f}".format}
    whole = ("requests", "prompt_tokens", "completion_tokens")
    print(
        table.to_string(index=False, formatters=shown | dict.fromkeys(whole, "{:,}".format), na_rep="unknown")
    )
    cost = "unknown" if table["usd"].isna().any() else f"${table['usd'].sum():,.2f}"
    print(
        f"{profile.plan.questions:,} questions an arm ({profile.plan.questions * QA_TOKENS:,} tokens of QA at "
        f"{QA_TOKENS:,} each): {table['requests'].sum():,} requests, "
        f"{(table['prompt_tokens'] + table['completion_tokens']).sum():,} tokens, {cost}, "
        f"{table['hours'].sum():,.1f} hours with {profile.teacher.in_flight:,} in flight"
    )
    if not table["measured"].all():
        print("tokens and seconds of models without earlier requests are assumptions (qatoolkit/estimate.py)")
    where, needs = training(profile)
    print(f"\nmid-training, one arm of {ARMS}, {where}:\n{needs.describe()}")


def _add_tokenise(commands) -> None:
    parser = commands.add_parser(
        "tokenise", help="QA files, or texts with --text, as a token file that a training job reads"
    )
    parser.add_argument(
        "files", nargs="+", help="QA in any form that read_seeds takes; texts in .parquet or .jsonl"
    )
    parser.add_argument("--tokenizer", required=True, help="a Hugging Face directory or name")
    parser.add_argument("--out", required=True, type=Path, help="the token file's folder")
    parser.add_argument("--text", metavar="COLUMN", help="the files hold running text in this column")
    parser.set_defaults(call=_tokenise)


def _tokenise(arguments) -> None:
    from qatoolkit.documents import qa_documents, text_documents
    from qatoolkit.hub import load_tokenizer
    from qatoolkit.seeds import read_seeds
    from qatoolkit.tokens import write_tokens

    if arguments.text:
        documents = text_documents(arguments.files, arguments.text)
    else:
        table, rejects = read_seeds(arguments.files)
        if len(rejects):
            print(f"{len(rejects):,} rows could not be read: {rejects['reason'].value_counts().to_dict()}")
        if table.empty:
            raise ValueError(
                f"no question in {', '.join(arguments.files)}; for running text name its column with --text"
            )
        documents = qa_documents(table)
    print(write_tokens(documents, load_tokenizer(arguments.tokenizer), arguments.out))


def _add_report(commands) -> None:
    parser = commands.add_parser("report", help="one self-contained HTML page of a run's figures and tables")
    _add_run_options(parser)
    parser.set_defaults(call=lambda a: print(os.path.relpath(_report(a))))


def _report(arguments) -> Path:
    from qatoolkit import report

    return report.write(_open(arguments))


def _add_doctor(commands) -> None:
    parser = commands.add_parser("doctor", help="what this machine has and whether anything is missing")
    parser.set_defaults(call=lambda a: _doctor())


def _doctor() -> int:
    from qatoolkit import doctor

    findings = doctor.findings()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.found}")
    return 0 if all(f.ok for f in findings) else 1


def _add_teacher(commands) -> None:
    teacher = commands.add_parser(
        "teacher", help="the offline teacher: an OpenAI-compatible server over the textbook"
    )
    serve = teacher.add_subparsers(dest="action", required=True).add_parser(
        "serve", help="serve until interrupted"
    )
    serve.add_argument("--port", type=int, default=8321, help="0 takes a free one (default %(default)s)")
    serve.add_argument("--entities", type=int, help="rows per discipline it writes about (default: all)")
    serve.add_argument("--entities-zh", type=int, help="the same in Chinese")
    serve.add_argument("--relations", type=int, help="columns per table it writes about (default: all)")
    serve.add_argument("--families", type=int, help="kinds of formula problem (default: all)")
    serve.add_argument("--faults", default="", help="e.g. rate_limit=0.05,server_error=0.02,latency=0.2")
    serve.add_argument("--log", type=Path, help="append one JSON line per answered request")
    serve.add_argument("--leash", action="store_true", help="end when standard input closes")
    serve.set_defaults(call=_serve)


def _serve(arguments) -> None:
    from qatoolkit.config import TextbookSettings
    from qatoolkit.textbook import server

    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port {arguments.port}: a port is a number from 0 to 65535")
    settings = TextbookSettings(
        entities=arguments.entities,
        families=arguments.families,
        entities_zh=arguments.entities_zh,
        relations=arguments.relations,
    )
    faults = server.Faults.parse(arguments.faults)
    server.serve(arguments.port, settings=settings, faults=faults, log=arguments.log, leash=arguments.leash)


if __name__ == "__main__":
    sys.exit(main())
