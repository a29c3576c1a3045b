"""The same global batch as 1 process × 4, 2 × 2, and 1 × 2 accumulated twice: the same losses, the same weights."""

import json
from pathlib import Path

import pytest
from conftest import overrides
from launched import furthest, furthest_weight, launch, logged, weights
from toys import QUICK, SMALL, WORDS, write_text

EACH = Path(__file__).parent / "each.py"
LAYOUTS = {"1 x 4": (1, 4, 1), "2 x 2": (2, 2, 1), "1 x 2, accumulated": (1, 2, 2), "2 x 1, accumulated": (2, 1, 2)}
STILL = {
    "gpt2": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
    "bert": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "rnn": ["dropout"],
    "fnn": ["dropout"],
}  # every process draws random numbers of its own
TRAINED = {"trainer__max_steps": -1, "trainer__num_train_epochs": 2, "trainer__logging_steps": 1}
FEW = ["data.validation_fraction=0", "trainer.learning_rate=1e-3"]


def write_rows(folder, rows=21):
    """Two files of texts of one to nine words, in two classes."""
    texts = [" ".join(WORDS[(i * j + i) % 8] for j in range(1 + i * 5 % 9)) for i in range(rows)]
    lines = [f"{'colour' if i % 3 == 0 else 'thing'},{text}\n" for i, text in enumerate(texts)]
    paths = [folder / "rows.csv", folder / "more.csv"]
    for path, part in zip(paths, (lines[:12], lines[12:]), strict=True):
        path.write_text("label,text\n" + "".join(part))
    return paths


def run_of(folder, kind, arch, layout, name, *more):
    """Overrides: 21 rows, or 22 blocks of which the last is short, make six steps of up to four an epoch."""
    _, size, accumulation = LAYOUTS[layout]
    task = ["tokenizer=char", "task.block_size=16"]
    data = [write_text(folder, lines=9), write_text(folder, "more.txt", lines=5)]
    if kind == "classifier":
        task = ["tokenizer=word", "task=text_classification", "task.max_length=32"]
        data = write_rows(folder)
    batch = [
        f"trainer.per_device_train_batch_size={size}", f"trainer.gradient_accumulation_steps={accumulation}"
    ]  # fmt: skip
    dropout = [f"model.config.{field}=0" for field in STILL[arch]]
    trained = [f"{key}={value}" for key, value in overrides(**TRAINED).items()]
    where = [f"data.files.train=[{data[0]},{data[1]}]", f"run={name}", f"runs_dir={folder / 'outputs'}"]
    return [*where, *SMALL[arch], *task, *QUICK, *dropout, *FEW, *trained, *batch, *more]


def train_each(folder, layout, runs):
    """What each of several runs logged, and its weights, trained one after the other."""
    calls, results = folder / "calls.json", folder / "results.json"
    calls.write_text(json.dumps([["train", run] for run in runs]))
    launch(folder, LAYOUTS[layout][0], EACH, calls, results)
    names = [next(option for option in run if option.startswith("run="))[4:] for run in runs]
    return [
        {**found, "weights": weights(folder / "outputs" / name)}
        for found, name in zip(json.loads(results.read_text()), names, strict=True)
    ]


STREAMED = ["data.streaming=true", "trainer.max_steps=14"]  # the second pass begins at step 8, or 7
LABELS = "data.labels=[colour,thing]"
MODELS = {
    **{f"{arch} LM": ("language_model", arch, []) for arch in ("gpt2", "rnn", "fnn")},
    **{f"{arch} classifier": ("classifier", arch, []) for arch in ("gpt2", "bert", "rnn", "fnn")},
    "bert classifier, random order": ("classifier", "bert", ["trainer.train_sampling_strategy=random"]),
    "gpt2 LM, streamed": ("language_model", "gpt2", STREAMED),
    "gpt2 LM, streamed by 2 workers": ("language_model", "gpt2", [*STREAMED, "trainer.dataloader_num_workers=2"]),
    "bert classifier, streamed": ("classifier", "bert", [*STREAMED, LABELS]),
    "bert classifier, streamed by 2 workers": (
        "classifier", "bert", [*STREAMED, LABELS, "trainer.dataloader_num_workers=2"]
    ),
}  # fmt: skip


def test_two_processes_make_the_steps_of_one(tmp_path):
    saved = ["trainer.save_strategy=steps", "trainer.save_steps=3", "trainer.num_train_epochs=1"]
    for layout, processes in (("1 x 4", 1), ("2 x 2", 2)):
        launch(
            tmp_path,
            processes,
            "-m",
            "hf_llm",
            "train",
            *run_of(tmp_path, "classifier", "bert", layout, processes, *saved),
        )
    one, two = tmp_path / "outputs" / "1", tmp_path / "outputs" / "2"
    assert len(logged(one, "loss")) == 6  # the last of one row: the second process has none
    assert furthest(logged(two, "loss"), logged(one, "loss")) < 1e-6
    assert furthest_weight(weights(two), weights(one)) < 1e-5


@pytest.mark.slow
def test_every_layout_of_a_batch_makes_the_same_steps(tmp_path):
    found, apart = {}, {}
    for layout in LAYOUTS:
        runs = [
            run_of(tmp_path, kind, arch, layout, f"{name} {layout}".replace(" ", "_").replace(",", ""), *more)
            for name, (kind, arch, more) in MODELS.items()
        ]
        found[layout] = dict(zip(MODELS, train_each(tmp_path, layout, runs), strict=True))
    table = [f"{'':40} {'steps':>5} {'loss':>8} {'grad norm':>9} {'weights':>8}"]
    for name in MODELS:
        one = found["1 x 4"][name]
        for layout in LAYOUTS:
            other = found[layout][name]
            far = [furthest(other[key], one[key]) for key in ("loss", "grad_norm")]
            far.append(furthest_weight(other["weights"], one["weights"]))
            table.append(f"{name:40} {len(other['loss']):5} {far[0]:8.1e} {far[1]:9.1e} {far[2]:8.1e}  {layout}")
            apart[name, layout] = len(other["loss"]) == len(one["loss"]) and far
    print("\n".join(table))  # the greatest relative difference of losses and norms, the greatest of weights
    for loss, norm, weight in apart.values():
        assert loss < 1e-6
        assert norm < 1e-4  # those of gradients that are nearly zero have few digits
        assert weight < 1e-5


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_goes_on_on_any_number(tmp_path):
    saved = ["trainer.save_strategy=steps", "trainer.save_steps=1", "trainer.save_total_limit=20"]
    kinds = ("classifier", "language_model")
    whole = train_each(tmp_path, "2 x 2", [run_of(tmp_path, kind, "rnn", "2 x 2", kind, *saved) for kind in kinds])
    done = 9  # in the second epoch, of six steps or seven
    for number, layout in enumerate(LAYOUTS):
        starts = [f"trainer.resume_from_checkpoint={tmp_path}/outputs/{kind}/checkpoint-{done}" for kind in kinds]
        runs = [
            run_of(tmp_path, kind, "rnn", layout, f"{kind}{number}", start)
            for kind, start in zip(kinds, starts, strict=True)
        ]
        for resumed, wanted in zip(train_each(tmp_path, layout, runs), whole, strict=True):
            assert len(resumed["loss"]) == len(wanted["loss"])  # the log goes on as well
            assert furthest(resumed["loss"][done:], wanted["loss"][done:]) < 1e-6
            assert furthest_weight(resumed["weights"], wanted["weights"]) < (1e-5 if layout != "2 x 2" else 1e-12)


@pytest.mark.slow
def test_a_mean_over_processes_of_their_means_is_warned_of_and_is_a_number(tmp_path):
    options = run_of(tmp_path, "classifier", "bert", "2 x 2", "r", "trainer.average_tokens_across_devices=false")
    (found,) = train_each(tmp_path, "2 x 2", [options])  # the second process has no row in the last batch
    assert all(0 < loss < 2 for loss in found["loss"])
    (log,) = (tmp_path / "outputs").glob("*/train.log")
    assert log.read_text().count("average_tokens_across_devices=false: ") == 1
