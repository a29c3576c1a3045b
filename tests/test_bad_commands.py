"""What a person can get wrong, through the command line: one line that says what, where and what would be right."""

import io
import logging
import shlex
import sys
from pathlib import Path
from string import Template

import datasets  # noqa: F401  before a test captures the standard error that its log handler would keep
import pytest
import transformers  # noqa: F401  likewise
from toys import QUICK, SMALL, classifier, language_model, masked_language_model, role_labeller, write_csv, write_text

from hf_llm.cli import main

TRANSCRIPT = Path(__file__).with_name("bad_commands.txt").read_text(encoding="utf-8").splitlines()
# (command, what the message says)
CASES = [(line[2:], TRANSCRIPT[i + 1].strip()) for i, line in enumerate(TRANSCRIPT) if line.startswith("$ ")]


def numbered(row, count):
    """A row so many times, with its number in place of #: equal rows cannot be split."""
    return "".join(row.replace("#", str(number)) for number in range(count))


# What lies in the folder that each command runs in, beside toys' corpus.txt and train.csv.
FILES = {
    "empty.txt": "",
    "white.txt": "  \n\n",
    "bytes.txt": b"a good line\nand \xff a bad one\n",
    "notes.dat": "words",
    "good.csv": "text,label\n" + numbered("red cat #,a\nblue dog #,b\n", 20),
    "lable.csv": "text,lable\nx,a\ny,b\n",
    "null_text.csv": "text,label\nx,a\n,b\n",
    "null_label.csv": "text,label\nx,a\ny,\n",
    "unseen.csv": "text,label\nx,a\ny,c\n",
    "one_class.csv": "text,label\n" + "x,a\n" * 20,
    "sorted.csv": "text,label\n" + numbered("x#,a\n", 20) + numbered("y#,b\n", 20),
    "long_row.csv": "text,label\nx,a\ny,b,c\n",
    "short_row.csv": "text,label\nx,a\ny\n",
    "quote.csv": 'text,label\n"x,a\ny,b\n',
    "header.csv": "text,label\n",
    "latin.csv": b"text,label\nx,a\ncaf\xe9,b\n",
    "null.jsonl": '{"text": "x", "label": "a"}\n{"text": null, "label": "b"}\n',
    "broken.jsonl": '{"text": "x", "label": "a"}\n{"text": "y", "label":}\n',
    "pairs.csv": "source,target\n" + numbered("red cat #,chat\nblue dog #,chien\n", 20),
    "number_target.jsonl": '{"source": "x", "target": ["y", 3]}\n',
    "no_target.jsonl": '{"source": "x", "target": "y"}\n{"source": "x", "target": []}\n',
    "deep.csv": "text,label\n" + "x,a\nz,b\n" * 1000 + "y\n",
    "short.conll": "red\tX\ncat\n",
    "tags.jsonl": '{"words": ["red", "cat"], "tags": ["X"]}\n',
    "asked.jsonl": numbered(
        '{"question": "who", "context": "a cat #", "answers": {"text": ["cat"], "answer_start": [2]}}\n', 9
    ),
    "before.jsonl": "".join(
        f'{{"question": "who", "context": "a cat", "answers": {{"text": ["cat"], "answer_start": [{start}]}}}}\n'
        for start in (-1, -4)
    ),
    "answers.jsonl": '{"question": "who", "context": "a cat", "answers": 7}\n',
    "list.json": "[1]",
    "object.json": "{}",
    "sound.csv": "label,text\nsound,red cat\n",
    "bare/README.txt": "no model, no tokenizer",
    "weightless/config.json": '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}',
    "outputs/foreign/thesis.tex": "mine",
    "outputs/in_the_way": "a file",
    "roles.conll": numbered("1\tit#\t_\tB-A0\n2\tran\trun.01\tB-V\n3\tnow\t_\tO\n\n", 30),
    "short_roles.conll": "1\tit\t_\tB-A0\n2\tran\trun.01\tB-V\n\n1\tit\t_\tB-A0\n2\tran\t_\tB-V\n",
    "other_verb.conll": "1\tit\trun.01\tB-A0\n2\tran\t_\tB-V\n",
    "roles.jsonl": '{"words": ["it", "is"], "predicate": "is", "tags": ["B-A0", "B-V"]}\n'
    '{"words": ["is", "is"], "predicate": "is", "tags": ["O", "B-V"]}\n',
    "no_verbs.jsonl": numbered('{"words": ["it#", "is"], "predicate": 1, "tags": ["B-A0", "O"]}\n', 20),
    "no_predicates.jsonl": numbered('{"words": ["it#", "is"], "tags": ["B-A0", "O"]}\n', 20),
    "conf/data/tabs.yaml": "files:\n\ttrain: corpus.txt\n",
    "conf/data/unknown.yaml": "pth: corpus.txt\n",
    "conf/data/code.yaml": "_target_: os.system\n",
    "conf/experiment/number.yaml": "# @package _global_\ndata: 5\n",
}

SRL = 'task=semantic_role_labelling model=bert tokenizer=word "data.columns={words: 1, predicate: 2, tags: 3}"'
MEET = "launcher.main_process_ip=127.0.0.1 launcher.main_process_port=29500"  # of several machines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with three finished runs, `lm`, `spam` and `masked`; beside it `more/outputs/roles`."""
    folder = tmp_path_factory.mktemp("trained")
    main(["train", *language_model(folder, run="lm")])
    main(["train", *classifier(folder, run="spam")])
    main(["train", *masked_language_model(folder, run="masked")])
    (folder / "more").mkdir()
    main(["train", *role_labeller(folder / "more", run="roles", **{"task.identify_predicates": "false"})])
    return folder / "outputs"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that commands run in, with FILES in it and nothing to read on standard input."""
    write_text(tmp_path)
    write_csv(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(logging.getLogger("hf_llm"), "handlers", [])  # each test's own standard error
    return tmp_path


def refused(argv, capsys) -> str:
    """What the command says of itself on standard error, when it refuses."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(argv)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("hf-llm: ")]
    return "\n".join(lines[start:])


def quick(words):
    """A training that is not refused after all is over soon."""
    return [*words[:1], *(QUICK if words[0] == "train" else []), *words[1:]]


def files_in(*folders: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for folder in folders
        for path in folder.rglob("*")
        if path.name != "outputs"
    }


@pytest.mark.parametrize(("command", "expected"), CASES, ids=[command for command, _ in CASES])
def test_a_bad_command_says_in_one_line_what_is_right_and_leaves_nothing(command, expected, here, runs, capsys):
    paths = {
        "LM": runs / "lm",
        "SPAM": runs / "spam",
        "MASKED": runs / "masked",
        "ROLES": runs.parent / "more" / "outputs" / "roles",
        "RUNS": runs,
    }
    words = Template(command).safe_substitute(paths, MEET=MEET, SRL=SRL, LONG_NAME="x" * 300, LONG_PROMPT="red_" * 300)
    before = files_in(here, runs)
    message = refused(quick(shlex.split(words)), capsys)
    assert len(message.splitlines()) == 1
    place = 0
    for fragment in expected.split(" … "):
        place = message.find(fragment, place)
        assert place >= 0, f"{fragment!r} is not in {message!r}"
    assert files_in(here, runs) == before


def test_there_are_many():
    assert len(CASES) >= 100


def test_every_mistake_is_listed_on_a_line_of_its_own(here, capsys):
    command = "train model=gtp2 ++data.pth=x trainer.learning_rat=1 trainer.max_steps=many +task.blocksize=3"
    heading, *lines = refused(command.split(), capsys).splitlines()
    assert heading == "hf-llm: 5 mistakes in the configuration:"
    assert all(line.startswith("  ") for line in lines)
    assert sorted(line.split(":")[0].strip() for line in lines) == [
        "data.pth", "model=gtp2", "task.blocksize", "trainer.learning_rat", "trainer.max_steps",
    ]  # fmt: skip


def test_a_mended_command_may_keep_the_name_of_the_run(here, capsys):
    command = ["train", *SMALL["gpt2"], "tokenizer=char", "task.block_size=16", *QUICK, "run=mine"]
    refused([*command, "data.files.train=corpus.tx"], capsys)
    assert not (here / "outputs" / "mine").exists()
    main([*command, "data.files.train=corpus.txt"])
    assert (here / "outputs" / "mine" / "metrics.json").is_file()


def test_every_wrong_setting_of_a_generation_is_listed_before_the_model_is_looked_for(here, capsys):
    wrong = ["generation.top_p=7", "generation.max_new_token=3", "generation.num_beams=many", "seed=-1"]
    heading, *lines = refused(["generate", "run=nowhere", *wrong], capsys).splitlines()
    assert heading == "hf-llm: 4 mistakes in the configuration:"
    assert {line.split(":")[0].strip() for line in lines} == {setting.split("=")[0] for setting in wrong}
