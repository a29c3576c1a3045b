"""Every YAML in conf/ composes and passes the check."""

import re

import pytest
from conftest import ROOT

from hf_llm import compose
from hf_llm.config import VERBS

CONF = ROOT / "conf"
GROUPS = ["data", "tokenizer", "model", "task", "trainer", "launcher", "experiment"]
OPTIONS = sorted(
    (path.relative_to(CONF).parts[0], str(path.relative_to(CONF / path.relative_to(CONF).parts[0]).with_suffix("")))
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.relative_to(CONF).parts[0] in GROUPS
)
# What an option leaves to the user to say.
LEFT_OPEN = {
    ("data", "files"): ["data.files.train=my.txt"],
    ("data", "hub"): ["data.path=user/name"],
    ("model", "arch"): ["model.arch=llama"],
    ("model", "pretrained"): ["model.pretrained=folder"],
    ("tokenizer", "pretrained"): ["tokenizer.pretrained=folder"],
    ("experiment", "csl_category"): ["tokenizer.pretrained=folder"],
    ("experiment", "cmrc2018"): ["model.pretrained=folder"],
    ("experiment", "propbank_ewt"): ["model.pretrained=folder"],
    ("experiment", "squadshifts_new_wiki"): ["model.pretrained=folder"],
    ("experiment", "ud_english_ewt"): ["model.pretrained=folder"],
    ("experiment", "wnut17"): ["model.pretrained=folder"],
}


def test_the_sweep_finds_every_group_and_every_file():
    assert {group for group, _ in OPTIONS} == set(GROUPS)
    no_groups = ("accelerate", "defaults")
    found = [path for path in CONF.rglob("*.yaml") if path.parent != CONF and path.parent.name not in no_groups]
    assert len(OPTIONS) == len(found) >= 15


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes_the_check(group, option):
    cfg = compose("train", f"{group}={option}", *LEFT_OPEN.get((group, option), []))
    if group == "experiment":
        assert cfg.run == option.split("/")[-1]


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"train"}))
def test_every_verbs_root_composes(verb):
    assert compose(verb, "run=some", *(["repo=me/some"] if verb in ("push", "pull") else [])).run == "some"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_opens_with_what_it_is_and_holds_no_code(path):
    text = path.read_text()
    assert text.startswith("# ")
    for forbidden in (r"\b_target_", "trust_remote_code", r"\$\{oc\.env"):  # max_target_length is innocent
        assert not re.search(forbidden, text)
    if path.parent.name == "experiment":
        assert text.splitlines()[1].startswith("# hf-llm train experiment=" + path.stem)
