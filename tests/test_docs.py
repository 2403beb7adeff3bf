"""The pages and READMEs: built strictly, their commands run in order, their options, links and languages compared."""

from __future__ import annotations

import configparser
import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from promptcblue_metric.errors import EXTRAS

from .conftest import ROOT

DOCS = ROOT / "docs"
#: Pages and READMEs of each language, by the name of the English one.
PAGES = {
    path: path.with_suffix(".zh.md") for path in (*DOCS.glob("*.md"), ROOT / "README.md") if ".zh" not in path.name
}
TEXTS = [*PAGES, *PAGES.values(), ROOT / "CONTRIBUTING.md"]
REPOSITORY = "https://github.com/promptcblue/promptcblue"
APPS = {
    "promptcblue-dataset": "promptcblue_dataset.cli",
    "promptcblue-metric": "promptcblue_metric.cli.main",
    "promptcblue-train": "promptcblue_training.cli",
}
#: Programs whose options are not ours to know.
OTHERS = ("export", "hf", "lm_eval", "llamafactory-cli", "swift", "axolotl")
#: What is added to commands that would take long, where they do not say it themselves.
CHEAPER: Mapping[str, Mapping[str, str]] = {
    "build": {"--sizes": "2,1,1", "--workers": "1"},
    "sft": {"--max_steps": "2", "--save_steps": "2", "--eval_steps": "2", "--warmup_steps": "0"},
    "predict": {"--max-new-tokens": "4"},
    "evaluate": {"--max-new-tokens": "4"},
}
#: Where the tests' own processes look first.
_PYTHONPATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
_BLOCK = re.compile(r"(?:<!-- needs: (.*?) -->\n)?^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """Commands or code of a page."""

    needs: str | None
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Its commands, split into words as a shell does, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order; those in lists, which are no commands, left out."""
    return [Block(found[1], found[2], found[3]) for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


# What a reader has, as a page says with "given": a stand-in for each.


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _sample(split: str) -> list[dict[str, Any]]:
    path = ROOT / "promptcblue_dataset" / "sample" / f"{split}.json"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _predictions(split: str, wrong: int) -> Callable[[Path], None]:
    """Right answers, and the one before in place of each ``wrong``-th."""

    def write(path: Path) -> None:
        rows = _sample(split)
        texts = [rows[place - (place % wrong == 0)]["target"] for place in range(len(rows))]
        key = ("sample_id", "task_dataset")
        _write(
            path,
            [{**{name: row[name] for name in key}, "prediction": text} for row, text in zip(rows, texts, strict=True)],
        )

    return write


def _answers(path: Path) -> None:
    """What the batch of `templates requests` comes back as."""
    text = "[INPUT_TEXT]\n请以医生的口吻续写下一句回复。\n答："
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    _write(path, [{"custom_id": "MedDG/1", "response": {"status_code": 200, "body": body}}])


def _official(path: Path) -> None:
    path.mkdir()
    for each in (ROOT / "promptcblue_dataset" / "sample").glob("*.json"):
        shutil.copy(each, path)


def _model(path: Path) -> None:
    """A model of the recipe that the pages train, made once."""
    made = Path(os.environ["HF_HOME"]) / "demo"
    if not made.is_dir():
        train = ["promptcblue-train", "sft", "demo", "--dataset", "sample", "--output_dir", str(made)]
        assert run(train) == 0
    shutil.copytree(made, path)


def _zipped(path: Path) -> None:
    _predictions("dev", 3)(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


GIVEN: Mapping[str, Callable[[Path], object]] = {
    "predictions.jsonl": _predictions("dev", 3),
    "predictions.jsonl.gz": _zipped,
    "base.jsonl": _predictions("dev", 2),
    "tuned.jsonl": _predictions("dev", 5),
    "test-answers.jsonl": _predictions("test", 3),
    "test.json": lambda path: shutil.copy(ROOT / "promptcblue_dataset" / "sample" / "test.json", path),
    "test_predictions.json": lambda path: _write(path, _sample("test")),
    "answers.jsonl": _answers,
    "official": _official,
    "CBLUE": lambda path: shutil.copytree(ROOT / "tests" / "dataset" / "raw", path),
    "runs/demo": _model,
}


# Running a page: all of this happens in one other process, which has caches of its own.


def run(words: Sequence[str]) -> int:
    """Run one of our commands in this process, made cheaper; returns its exit code."""
    cheaper = {} if "--list" in words else CHEAPER.get(words[1], {})
    sys.argv = [*words, *(word for option in cheaper.items() if option[0] not in words for word in option)]
    try:
        import_module(APPS[words[0]]).main()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def piped(words: list[str]) -> list[str]:
    """The command at the end of ``gunzip -c FILE | …``, with what it reads put on its input."""
    if words[:2] == ["gunzip", "-c"] and words[3] == "|":
        sys.stdin = io.TextIOWrapper(io.BytesIO(gzip.decompress(Path(words[2]).read_bytes())), encoding="utf-8")
        words = words[4:]
    assert words[0] in APPS, f"{shlex.join(words)}: no command of ours, and not marked with what it needs"
    return words


def run_page(page: Path, folder: Path) -> None:
    """Run what a page says, in its order, in a folder that holds what it says it is given.

    Raises:
        AssertionError: a command that fails, or that is none of ours and not marked.
    """
    os.chdir(folder)
    for name in re.findall(r"<!-- given: (.*?) -->", page.read_text(encoding="utf-8")):
        for each in name.split():
            path = folder / each
            path.parent.mkdir(exist_ok=True)
            GIVEN[each](path)
    names: dict[str, Any] = {"my_model": lambda _: "肺炎", "__name__": "page"}
    for block in blocks(page):
        if block.needs:
            continue
        if block.language == "python":
            if "outputs" in block.text:
                from promptcblue_dataset import load_samples

                names["dataset"] = list(load_samples("sample", "validation"))
                names["outputs"] = [sample["target"] for sample in names["dataset"]]
            exec(compile(block.text, str(page), "exec"), names)
            continue
        for words in block.commands:
            code = run(piped(words))
            cut = words[1] in ("predict", "evaluate")  # 3: many answers of so small a model are cut
            assert code == 0 or (code == 3 and cut), f"{shlex.join(words)}: exit code {code}"


def run_pages(folder: str) -> None:
    """Run every page; ends with the exit code 1 where one fails."""
    failed = False
    for page in PAGES:
        own = Path(folder) / page.stem
        own.mkdir()
        print(f"===== {page.name}", flush=True)
        try:
            run_page(page, own)
        except BaseException:  # the other pages too
            traceback.print_exc(file=sys.stdout)
            failed = True
    sys.exit(failed)


def test_every_command_runs_in_the_order_of_its_page(tmp_path: Path) -> None:
    home = tmp_path / "hf"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from tests.test_docs import run_pages; run_pages(sys.argv[1])", tmp_path],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": _PYTHONPATH,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "HF_EVALUATE_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


# What is not run is read.


def _leaf(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The sub-command that words name, and the words after it."""
    from typer.main import get_command

    command: Any = get_command(import_module(APPS[words[0]]).app)
    rest = list(words[1:])
    while rest and (found := getattr(command, "commands", {}).get(rest[0])):
        command, rest = found, rest[1:]
    return command, rest


def check(words: Sequence[str]) -> None:
    """Read a command without running it.

    Raises:
        AssertionError: an option, recipe, file, target or extra that is not there.
    """
    name, *rest = words
    if "|" in rest:
        check(rest[rest.index("|") + 1 :])
    elif name in APPS:
        command, arguments = _leaf(words)
        assert not hasattr(command, "commands"), f"{shlex.join(words)}: no such command"
        if command.name == "sft":
            from promptcblue_training.settings import parse_recipe

            if "--list" not in arguments:
                parse_recipe(_recipe(arguments[0]), arguments[1:])
            return
        command.make_context(shlex.join(words[: len(words) - len(arguments)]), arguments)
    elif "-m" in rest and (module := rest[rest.index("-m") + 1]).startswith("promptcblue_training."):
        after = rest[rest.index("-m") + 2 :]
        check(["promptcblue-train", *(["sft"] if module.endswith(".sft") else []), *after])
        files = [word for word in rest[: rest.index("-m")] if word.endswith(".yaml")]
        assert all((ROOT / file).is_file() for file in files), shlex.join(words)
    elif name == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), shlex.join(words)
    elif name == "python":
        assert (ROOT / rest[0]).is_file(), shlex.join(words)
    elif name == "pip":
        for extra in re.findall(r"\[(.*?)\]", shlex.join(rest)):
            assert set(extra.split(",")) <= set(_extras()), shlex.join(words)
    else:
        assert name in OTHERS, f"{shlex.join(words)}: not known to the tests"


def _recipe(name: str) -> Path | str:
    """The recipe a page names; one of the reader's own reads like the demo's."""
    return ROOT / "training" / "recipes" / "demo.yaml" if name == "my-recipe.yaml" else name


def _extras() -> dict[str, list[str]]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    own = {name: text.split("\n") for name, text in config["options.extras_require"].items()}
    return {"base": config["options"]["install_requires"].split("\n"), **own}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_command_has_only_options_that_there_are(page: Path) -> None:
    for block in blocks(page):
        for words in block.commands if block.language == "bash" else ():
            check(words)
    for spoken in re.findall(rf"`((?:{'|'.join(APPS)}) [^`\n]+)`", _BLOCK.sub("", page.read_text(encoding="utf-8"))):
        command, _ = _leaf(spoken.split())
        assert not hasattr(command, "commands"), spoken


def _options() -> set[str]:
    """Every option of our commands, the recipe's keys among them."""
    from promptcblue_training.settings import RecipeParser

    def walk(command: Any) -> Iterator[str]:
        for each in getattr(command, "commands", {}).values():
            yield from walk(each)
        for each in command.params:
            yield from (*each.opts, *each.secondary_opts)

    found = {f"--{action.dest}" for action in RecipeParser()._actions}
    for name in APPS:
        found.update(walk(_leaf([name])[0]))
    return found


def test_every_option_that_a_page_speaks_of_is_there() -> None:
    known = _options() | {"--help"}
    for page in [*PAGES, *PAGES.values()]:
        text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        codes = [code for code in re.findall(r"`([^`\n]+)`", text) if code.split()[0] not in OTHERS]
        spoken = set(re.findall(r"(?<!\S)--\w[\w-]*", " ".join(codes)))
        unknown = sorted(option for option in spoken - known if not _of_a_script(option))
        assert not unknown, page.name


def _of_a_script(option: str) -> bool:
    """Whether one of the scripts under benchmarks/ has this option."""
    return any(f'"{option}"' in path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))


# Languages, links, the site.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_both_languages_say_the_same_commands_in_the_same_order(page: Path) -> None:
    english, chinese = blocks(page), blocks(PAGES[page])
    assert [(block.language, block.needs is None) for block in english] == [
        (block.language, block.needs is None) for block in chinese
    ]
    for ours, theirs in zip(english, chinese, strict=True):
        if ours.language == "bash":
            assert ours.commands == theirs.commands
        else:
            assert re.sub(r" *#.*", "", ours.text) == re.sub(r" *#.*", "", theirs.text)
    listed = [
        re.findall(r"^ +```\w+\n(.*?)^ +```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for path in (page, PAGES[page])
    ]
    assert listed[0] == listed[1]
    for mark in (r"^#+ ", r"^\|", r"<!-- given: .*? -->"):
        texts = [_BLOCK.sub("", path.read_text(encoding="utf-8")) for path in (page, PAGES[page])]
        found = [len(re.findall(mark, text, re.MULTILINE)) for text in texts]
        assert found[0] == found[1], mark


def test_the_readmes_are_short_and_their_links_work_from_anywhere() -> None:
    for page in (ROOT / "README.md", ROOT / "README.zh.md"):
        text = page.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 150
        assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", text))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_into_the_repository_lead_to_files(page: Path) -> None:
    for kind, path in re.findall(rf"{REPOSITORY}/(blob|tree)/main/([^)#\s]*)", page.read_text(encoding="utf-8")):
        assert (ROOT / path).is_dir() if kind == "tree" else (ROOT / path).is_file(), path


class _Outside(HTMLParser):
    """What a page of the site would fetch from elsewhere by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source = given.get("href") if tag == "link" and given.get("rel") != "canonical" else given.get("src")
        if source and re.match(r"(https?:)?//", source):
            self.found.append(source)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": _PYTHONPATH}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page_in_both_languages_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    names = [page.stem for page in PAGES if page.parent == DOCS]
    for root in (site, site / "zh"):
        for name in names:
            path = root / "index.html" if name == "index" else root / name / "index.html"
            reader = _Outside()
            reader.feed(path.read_text(encoding="utf-8"))
            assert not reader.found, path
    assert "Needs: a checkout" in (site / "install" / "index.html").read_text(encoding="utf-8")
    assert "需要：代码目录" in (site / "zh" / "install" / "index.html").read_text(encoding="utf-8")


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    from html import unescape

    from promptcblue_training.recipe import Recipe

    for root in (site, site / "zh"):
        text = unescape((root / "commands" / "index.html").read_text(encoding="utf-8"))
        for option in _shown():
            assert option in text
        assert all(key in text for key in Recipe.__dataclass_fields__)


def _shown() -> Iterator[str]:
    """Names of commands and of options that are not hidden."""

    def walk(command: Any, path: str) -> Iterator[str]:
        yield path
        for name, each in getattr(command, "commands", {}).items():
            yield from walk(each, f"{path} {name}")
        yield from (
            option
            for each in command.params
            if path.count(" ") and not getattr(each, "hidden", False)
            for option in each.opts[:1]
        )

    for name in APPS:
        yield from walk(_leaf([name])[0], name)


def test_the_table_of_dependencies_is_that_of_the_package() -> None:
    wanted = {
        (re.split(r"[<>=\[ ]", library)[0].lower(), extra)
        for extra, libraries in _extras().items()
        for library in libraries
        if library and not library.startswith("promptcblue")
    }
    for page in (DOCS / "dependencies.md", DOCS / "dependencies.zh.md"):
        rows = re.findall(r"^\| ([^|`]+?) \|[^|]*\| `?(.+?)`? \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
        listed = {
            (library.lower(), "base" if extra == "基础" else extra)
            for libraries, extra in rows[1:]
            for library in re.split(r", |、", libraries)
        }
        assert listed == wanted


def test_the_extra_that_a_missing_library_is_advised_by_brings_it() -> None:
    extras = _extras()
    for library, extra in EXTRAS.items():
        assert any(each.startswith(library.replace("_", "-")) for each in extras[extra]), library


@pytest.mark.parametrize("page", [DOCS / "design.md", DOCS / "design.zh.md"], ids=lambda page: page.name)
def test_the_table_of_modules_is_that_of_the_packages(page: Path) -> None:
    packages = [ROOT / name for name in ("promptcblue_metric", "promptcblue_dataset", "training")]
    table = "".join(re.findall(r"^\| `.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(?:… )?(\w+)/?`", table)) - {"sample", "evaluate"}
    modules = {path.stem for package in packages for path in package.rglob("*.py")}
    folders = {path.parent.name for package in packages for path in package.rglob("__init__.py")}
    assert named <= modules | folders
    assert folders <= named
