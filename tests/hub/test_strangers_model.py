"""A stranger's model or tokenizer, in a folder or on the Hub, is data: what would run code or read what is not its own
is refused in one line, and what looks much alike and is harmless is taken."""

import json
import subprocess
import sys

import pytest
import torch
from hub_server import HubServer
from transformers import BertTokenizer, GPT2Config, GPT2LMHeadModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]
INDEX = "model.safetensors.index.json"
SECRET = "\n".join([*WORDS, "secret"]) + "\n"  # secret.txt, beside the repositories and where the command is given


def settings(name="tokenizer_config.json", **fields):
    return {name: json.dumps({"tokenizer_class": "BertTokenizer", **fields})}


# What is added to a repository with a vocab.txt; {above} is the folder of the secret.
TOKENIZERS = {
    "vocab": settings(vocab="{above}/secret.txt"),
    "vocab_file": settings(tokenizer_class="PreTrainedTokenizerFast", vocab_file="{above}/secret.txt"),
    "merges": settings(tokenizer_class="GPT2Tokenizer", vocab={"a": 0}, merges="{above}/secret.txt"),
    "merges_file": settings(merges_file="../secret.txt"),
    "tokenizer_file": settings(tokenizer_file="{above}/secret.txt"),
    "spm_file": settings(spm_file="~/secret.txt"),
    "source_spm": settings(source_spm="../secret.txt"),
    "fast_tokenizer_files": settings(fast_tokenizer_files=["{above}/tokenizer.9.0.0.json"]),
    "init_inputs": settings(init_inputs=["{above}/secret.txt"]),
    "a name where the command is given": settings(vocab="secret.txt"),
    "settings in settings": settings(sudachi_kwargs={"sudachi_resource_dir": "/etc"}),
    "the map of special tokens": settings("special_tokens_map.json", vocab="{above}/secret.txt"),
}
# What is added to a whole model, and what it takes away.
MODELS = {
    "an index of a pickle": ({INDEX: '{"metadata": {}, "weight_map": {"a": "weights.txt"}}'}, "names weights.txt"),
    "an index of a place": ({INDEX: '{"metadata": {}, "weight_map": {"a": "{above}/x.safetensors"}}'}, "names /"),
    "an index of a place above": ({INDEX: '{"metadata": {}, "weight_map": {"a": "../x.safetensors"}}'}, "names ../x"),
    "an index of numbers": ({INDEX: '{"metadata": {}, "weight_map": {"a": 1}}'}, "names 1, which"),
    "no index": ({INDEX: "[1]"}, "is no index of weights"),
    "pickled weights": ({"config.json": {"transformers_weights": "adapter_model.bin"}}, "in adapter_model.bin"),
    "another index": ({"config.json": {"transformers_weights": "x.safetensors.index.json"}}, "no safetensors file"),
    "an adapter": ({"adapter_config.json": '{"base_model_name_or_path": "{above}"}'}, "merge it into its base model"),
    "a kernel": ({"config.json": {"attn_implementation": "evil/kernel"}}, "attn_implementation=evil/kernel, a kernel"),
    "a kernel, underscored": ({"config.json": {"_attn_implementation": "evil/kernel@v1"}}, "a kernel of the Hub"),
    "a kernel for a part": ({"config.json": {"attn_implementation": {"text": "paged|evil"}}}, "a kernel of the Hub"),
    "a kernel of a part": (
        {"config.json": {"text_config": {"experts_implementation": "evil:x"}}},
        "=evil:x, a kernel",
    ),
}
TOKENIZER_JSON = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).backend_tokenizer.to_str()
HARMLESS = {
    "in parts": {},
    "a place that is not asked": settings(tokenizer_file="/home/x/tokenizer.json")
    | {"tokenizer.json": TOKENIZER_JSON},
    "places that are only told": settings(special_tokens_map_file="/home/x/special_tokens_map.json"),
    "a name": settings(merges_file="merges.txt"),
    "tokens with slashes": settings(extra_special_tokens=["</s>", "/"]),
    "an implementation": {"config.json": {"attn_implementation": "eager"}},
}


@pytest.fixture(scope="module")
def repos(tmp_path_factory):
    """Name -> a folder with a tiny GPT-2, a vocabulary, and what the case adds."""
    above = tmp_path_factory.mktemp("strangers")
    (above / "secret.txt").write_text(SECRET)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=16, vocab_size=len(WORDS)))
    cases = TOKENIZERS | {name: added for name, (added, _) in MODELS.items()} | HARMLESS
    folders = {name: above / f"repo{number}" for number, name in enumerate(cases)}
    for name, added in cases.items():
        folder = folders[name]
        model.save_pretrained(folder, max_shard_size="3KB" if name == "in parts" else "1GB")
        if INDEX in added:
            (folder / "model.safetensors").unlink()
            torch.save(model.state_dict(), folder / "weights.txt")
        for path, content in {"vocab.txt": "\n".join(WORDS) + "\n", **settings(), **added}.items():
            if isinstance(content, dict):
                content = json.dumps({**json.loads((folder / path).read_text()), **content})
            (folder / path).write_text(content.replace("{above}", str(above)))
    assert (folders["in parts"] / INDEX).is_file()
    return folders


LOAD = """
import json, os, sys
from hf_llm.config import InputError, ModelConfig, TokenizerConfig
from hf_llm.models import build
from hf_llm.tokenizer import load
import torch, transformers.generation  # what is opened from here on is opened by the loading
opened = []
def watch(event, arguments):
    if event == "open" and ("secret" in str(arguments[0]) or str(arguments[0]).endswith("weights.txt")):
        opened.append(str(arguments[0]))
sys.addaudithook(watch)
torch.load = lambda *args, **kwargs: opened.append("torch.load")
said = {}
for name, source in json.loads(sys.argv[1]).items():
    try:
        tokenizer = load(TokenizerConfig(pretrained=source), None, special_tokens={})
        build(ModelConfig(pretrained=source), auto_model="AutoModelForCausalLM", tokenizer=tokenizer)
        said[name] = None
    except Exception as error:
        said[name] = str(error) if isinstance(error, InputError) else repr(error)
print(json.dumps([said, opened]))
"""


def loaded(sources, cwd, env=None):
    """Name -> what is said against each model; and what was opened that none has anything to do with."""
    command = [sys.executable, "-c", LOAD, json.dumps(sources)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["folder", "Hub"])
def outcome(request, repos, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / "secret.txt").write_text(SECRET)
    if request.param == "folder":
        yield loaded({name: str(folder) for name, folder in repos.items()}, place)
        return
    with HubServer() as hub:
        for folder in repos.values():
            hub.add(f"evil/{folder.name}", {path.name: path.read_bytes() for path in folder.iterdir()})
        sources = {name: f"evil/{folder.name}" for name, folder in repos.items()}
        yield loaded(sources, place, hub.environment(place / "home"))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_names_files_of_this_machine_is_refused(name, outcome):
    said, _ = outcome
    assert said[name] is not None
    assert said[name].startswith("tokenizer.pretrained=")
    assert "names a file of this machine" in said[name]
    assert "\n" not in said[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_reaches_out_of_its_repository_is_refused(name, outcome):
    said, _ = outcome
    assert said[name] is not None
    assert said[name].startswith("model.pretrained: ")
    assert MODELS[name][1] in said[name]
    assert "\n" not in said[name]


def test_nothing_of_this_machine_was_opened_and_nothing_unpickled(outcome):
    assert outcome[1] == []


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_taken(name, outcome):
    said, _ = outcome
    assert said[name] is None


CONFIG = """
data: {path: "builtin:unicode_names"}
tokenizer: {pretrained: evil/repo}
model: {arch: rnn, config: {hidden_size: 8}}
task: {name: text_classification}
trainer: {max_steps: 1, seed: 1, use_cpu: true}
"""


@pytest.mark.parametrize("command", [["predict", "run=evil/repo", "input=names.txt"], ["rerun", "run=mine"]])
def test_neither_a_run_of_the_hub_nor_one_that_is_repeated_takes_such_a_tokenizer(command, repos, tmp_path):
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "config.yaml").write_text(CONFIG)
    (tmp_path / "names.txt").write_text("red\n")
    with HubServer() as hub:
        files = {path.name: path.read_bytes() for path in repos["vocab"].iterdir()}
        hub.add("evil/repo", {**files, "run/config.yaml": CONFIG})
        command = [sys.executable, "-m", "hf_llm", *command]
        env = hub.environment(tmp_path / "home")
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stderr
    assert "tokenizer_config.json names a file of this machine, vocab=/" in done.stderr.splitlines()[-1]
