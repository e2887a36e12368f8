"""What the documentation shows is true: its commands run, its links lead somewhere, its tables are the code's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel
from ruamel.yaml import YAML

from heap_integration.environment import Environment, EnvironmentProblems, Secret, load_environment
from heap_integration.events.flatten import FORMS
from heap_integration.events.mapping import Mapping
from heap_integration.events.prepare import Preparer, PrepareSettings
from heap_integration.events.preview import preview
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import WarehouseSettings

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# What makes a piece of code within a sentence a command.
PROGRAMS = ("heap-integration ", "make ", "python ")
MARKDOWN = MarkdownIt("commonmark").enable("table")

# Run here, in this order, in a copy of the project.
QUICK = (
    "cp environments/production/.env.example environments/production/.env",
    "chmod 600 environments/production/.env",
    "heap-integration check --offline",
    "mkdir -p data/dagster && cp dagster.yaml data/dagster/",
    "heap-integration --help",
    "heap-integration preview-events events.ndjson -e production",
    'heap-integration rejected -e production --reason "longer than"',
    'heap-integration retry -e production --reason "longer than"',
    "heap-integration status -e production --json",
    "dagster definitions validate -w workspace.yaml",
)
# Run by somebody else: the file that does it, and what in it does.
ELSEWHERE = {
    "make demo": ("Makefile", "heap-integration demo"),
    "make demo ONCE=1": ("heap_integration_tests/end_to_end/test_demo.py", '"--once"'),
    "make demo DAYS=all": ("Makefile", "--days $(DAYS)"),
    "make demo DATA=events.ndjson.gz MAPPING=docs/mappings/github_events.yaml": ("Makefile", '--data "$(DATA)"'),
    "make test": (".ci/run", "make test"),
    "make setup": ("Makefile", "setup: $(VENV)/.ready"),
    ". .venv/bin/activate": ("Makefile", "VENV := .venv"),
    "heap-integration check production": ("heap_integration_tests/test_checks.py", "online_checks("),
    "heap-integration receive -e production": ("heap_integration/demo/run.py", '"receive", "-e"'),
    'DAGSTER_HOME="$PWD/data/dagster" dagster dev -w workspace.yaml': (
        "heap_integration/demo/run.py",
        '"dev", "-w", "workspace.yaml"',
    ),
    "heap-integration send-events events.ndjson -e production": ("benchmarks/send_events.py", '"send-events"'),
    'heap-integration sync "Power users" -e production --preview': (
        "heap_integration_tests/test_cli_syncs.py",
        '"--preview"',
    ),
    "heap-integration stream -e production": ("heap_integration_tests/test_streaming.py", '"stream", "-e"'),
}
EVENTS = """\
{"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "order-0001", "properties": {"total": 42.5}}
{"type": "track", "event": "Order Completed"}
"""


def tokens(page: Path) -> Iterator[Token]:
    """Yield everything of a page, what stands inside lines too."""
    for token in MARKDOWN.parse(page.read_text("utf-8")):
        yield token
        yield from token.children or ()


def fences(page: Path) -> list[tuple[str, str]]:
    return [(token.info, token.content) for token in tokens(page) if token.type == "fence"]


def shell_lines(page: Path) -> list[str]:
    """Return the commands of a page's code blocks without their comments."""
    lines = [line for kind, content in fences(page) if kind == "sh" for line in content.splitlines()]
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip()]


def spans(page: Path) -> list[str]:
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def rows(page: Path, first: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is ``first``, cell by cell."""
    found: list[list[str]] = []
    for token in tokens(page):
        if token.type == "table_open":
            found = []
        elif token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append(token.content)
        elif token.type == "table_close" and found[0][0] == first:
            return found[1:]
    raise AssertionError(f"{page} has no table of {first}")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_to_a_page_or_picture_that_the_docs_serve(page: Path) -> None:
    targets = {str(token.attrs.get("href") or token.attrs["src"]) for token in tokens(page) if is_link(token)}
    wrong = [target for target in targets if "://" not in target and not served((page.parent / target).resolve())]
    assert not wrong


def is_link(token: Token) -> bool:
    return token.type in ("link_open", "image")


def served(target: Path) -> bool:
    return target.is_file() and (target == README or ROOT / "docs" in target.parents)


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / str(token.attrs["href"])).resolve() for token in tokens(index) if is_link(token)}
    assert set(PAGES) - {index} <= linked


def test_every_command_of_the_readme_is_accounted_for() -> None:
    assert set(shell_lines(README)) == {*QUICK, *ELSEWHERE}
    for line, (file, text) in ELSEWHERE.items():
        assert text in (ROOT / file).read_text(), f"{file} no longer does what stands for: {line}"


@pytest.mark.slow
def test_the_five_minutes_of_the_readme_work(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "environments", tmp_path / "environments", ignore=shutil.ignore_patterns(".env"))
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    # Two locations take twice the time and show nothing more: the sandbox's is left out.
    marked = (ROOT / "workspace.yaml").read_text().rpartition("  # - python_module:")
    told = "load_from:\n" + "".join(marked[1:]).replace("  # ", "  ")
    assert told.endswith("location_name: production\n")
    (tmp_path / "workspace.yaml").write_text(told)
    (tmp_path / "events.ndjson").write_text(EVENTS)
    secrets = re.findall(r"(?m)^([A-Z_]+)=", (tmp_path / "environments/production/.env.example").read_text())
    environ = {name: value for name, value in os.environ.items() if name not in {*secrets, "DAGSTER_HOME"}}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}",
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    said: dict[str, str] = {}

    for line in QUICK:
        done = subprocess.run(
            ["bash", "-ec", line], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout + done.stderr
        if line.startswith("cp"):
            filled = tmp_path / "environments" / "production" / ".env"
            filled.write_text("".join(f"{name}=filled-in-{name.lower()}\n" for name in secrets))

    assert said[QUICK[2]].startswith("ok     production  settings: ")
    refused, request = map(json.loads, said[QUICK[5]].splitlines())
    assert refused == {"line": 2, "rejected": "no user: neither userId nor anonymousId"}
    assert request["json"]["events"][0]["idempotency_key"] == "order-0001"
    assert json.loads(said[QUICK[8]])["events"]["pending"] == 0
    assert "Validation successful for code location production" in said[QUICK[9]]


def test_every_command_of_the_docs_exists_with_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop.yaml", "shop.parquet", "events.ndjson", "workspace.yaml", "production.workspace.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        lines = [*shell_lines(page), *(span for span in spans(page) if span.startswith(PROGRAMS))]
        for line in lines:
            for command in re.split(r" && | < ", line):
                account(command)


def account(command: str) -> None:
    """Fail unless a command is known, and takes the options it is given."""
    program, *arguments = words = shlex.split(command)
    while "=" in program:
        program, *arguments = arguments
    if program == "flock":
        program, *arguments = arguments[2 if arguments[0] == "--shared" else 1 :]
    takes: dict[str, Callable[[list[str]], None]] = {
        "make": make_takes,
        "heap-integration": heap_integration_takes,
        "dagster": dagster_takes,
        "python": python_takes,
        "cp": copies,
        "dbt": in_project,
    }
    plain = ("chmod", "curl", "export", "mkdir", ".", "events.ndjson")
    assert program in (*takes, *plain), f"nobody accounts for {words}"
    if program in takes:
        takes[program](arguments)


def make_takes(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for argument in arguments:
        name, given, _ = argument.partition("=")
        assert f"$({name})" in text if given else re.search(f"(?m)^{name}:", text), argument


def heap_integration_takes(arguments: list[str]) -> None:
    parse(command_line(), "heap-integration", arguments)


def dagster_takes(arguments: list[str]) -> None:
    from dagster._cli import create_dagster_cli

    parse(create_dagster_cli(), "dagster", arguments)  # type: ignore[no-untyped-call]


@cache
def command_line() -> Any:
    """Return our command as click has it."""
    with warnings.catch_warnings():
        # What typer takes from click, click has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from typer.main import get_command

        from heap_integration.cli import app

        return get_command(app)


def parse(command: Any, name: str, arguments: list[str], parent: Any = None) -> None:
    """Let a command line read its arguments, its subcommands' too, without running anything."""
    if "--help" in arguments or (parent is None and not arguments):
        return
    with command.make_context(name, list(arguments), parent=parent) as context:
        if hasattr(command, "resolve_command"):
            left = [*getattr(context, "_protected_args", ()), *context.args]
            chosen, found, rest = command.resolve_command(context, left)
            parse(found, chosen, rest, context)


def python_takes(arguments: list[str]) -> None:
    program, *options = arguments
    if program == "-m":
        module, *options = options
        program = f"{module.replace('.', '/')}.py"
    if program != "-c":
        script = (ROOT / program).read_text()
        assert all(f'"{option}"' in script for option in options if option.startswith("--"))


def copies(arguments: list[str]) -> None:
    assert all((ROOT / source).is_file() for source in arguments[:-1] if not source.startswith("data/"))


def in_project(arguments: list[str]) -> None:
    assert all((ROOT / folder).is_dir() for folder in arguments if folder == "dbt_project")


def test_the_table_of_commands_is_the_command_lines() -> None:
    told = [row[0].strip("`") for row in rows(README, "Command")]
    assert sorted(told) == sorted(command_line().commands)


def test_the_options_the_docs_name_exist() -> None:
    known = {option for command in commands(command_line()) for each in command.params for option in each.opts}
    named = {span.split()[0] for page in PAGES for span in spans(page) if span.startswith("--")}
    assert named <= known


def commands(group: Any) -> Iterator[Any]:
    """Yield the commands of a group and of the groups within it."""
    for command in group.commands.values():
        yield command
        if hasattr(command, "commands"):
            yield from commands(command)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of each field of a model, as the docs write it, and the field."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        inner = model_in(field.annotation)
        # what each warehouse is told stands in a table of its own
        if inner not in (None, Secret) and not issubclass(inner, WarehouseSettings):
            members = {tuple: "[].", dict: ".<name>."}.get(get_origin(field.annotation), ".")
            yield from fields(inner, path + members)


def model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    for part in get_args(annotation):
        yield from choices(part)


def default_text(field: Any) -> str:
    """Return a field's default as the docs write it: YAML, or – where there is none."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, DuckDBSettings):
        return f"`{default.url}`"
    if default is None or isinstance(default, BaseModel):
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(each.name if isinstance(each, BaseModel) else each for each in default)}]`"
    text = default.isoformat() if isinstance(default, date) else str(default)
    return f"`{text}`" if text else '`""`'


def test_the_fields_of_an_environment_are_the_models_with_their_defaults() -> None:
    told = {row[0].strip("`"): row for row in rows(ROOT / "docs" / "environments.md", "Field")}
    # The sections that every environment has stand in the table by their fields.
    sections = {"heap", "sources", "privacy", "events", "destinations"}
    known = {path: field for path, field in fields(Environment) if path not in sections}

    assert list(told) == list(known)
    assert {path: row[2] for path, row in told.items()} == {
        path: "the folder's name" if path == "name" else default_text(field) for path, field in known.items()
    }
    for path, field in known.items():
        inner = model_in(field.annotation)
        if not (inner and issubclass(inner, WarehouseSettings)):
            assert all(f"`{choice}`" in told[path][1] for choice in choices(field.annotation)), path


def test_the_fields_of_a_mapping_are_the_models_with_their_defaults() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(ROOT / "docs" / "events.md", "Field")}
    assert told == {path: default_text(field) for path, field in fields(Mapping)}


def test_the_mistakes_shown_are_told_in_these_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = fences(ROOT / "docs" / "environments.md")
    pairs = [(yaml, text) for (one, yaml), (two, text) in pairwise(shown) if (one, two) == ("yaml", "text")]
    file = tmp_path / "environments" / "production" / "environment.yaml"
    file.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert len(pairs) == 3
    for yaml, text in pairs:
        file.write_text(yaml)
        with pytest.raises(EnvironmentProblems) as caught:
            load_environment(file.parent)
        assert str(caught.value) == text.rstrip("\n")


def test_the_examples_of_environments_are_valid() -> None:
    pages = {name: fences(ROOT / "docs" / f"{name}.md") for name in ("segments", "environments")}
    component = YAML(typ="safe").load(next(text for _, text in pages["environments"] if text.startswith("type:")))
    Environment.model_validate(component["attributes"])
    segment = YAML(typ="safe").load(next(text for kind, text in pages["segments"] if kind == "yaml"))
    key = {"env": "KEY"}
    destinations = {
        "userflow": {"api_key": key},
        "customerio": {"site_id": key, "api_key": key, "app_api_key": key},
    }
    heap = {"app_id": "1", "segment_sync": {"webhook_secret": key}}
    Environment.model_validate({"name": "production", "heap": heap, "destinations": destinations, **segment})


def test_the_forms_of_the_presets_are_shown_as_they_are(tmp_path: Path) -> None:
    shown = fences(ROOT / "docs" / "events.md")
    source = tmp_path / "events.ndjson"
    source.write_text(next(text for kind, text in shown if kind == "json"))
    lines = next(text for kind, text in shown if kind == "text" and text.startswith("hub")).splitlines()
    told = {preset: json.loads(properties) for preset, properties in (line.split(maxsplit=1) for line in lines)}

    made: dict[str, Any] = {}
    for preset in FORMS:
        preparer = Preparer(PrepareSettings(preset=preset, mask=("email",)))
        (request,) = preview(source, None, preparer, url="https://heapanalytics.com", app_id="1")
        made[preset] = request["json"]["events"][0]["properties"]

    assert told == made
