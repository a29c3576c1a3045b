"""Translation and summarization: the loss, what is generated, and the way from a file to a saved model and back."""

import io
import json

import pytest
import torch
from conftest import ROOT
from launched import furthest, launch
from toys import WORDS, language_model, translator, write_pairs
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, pipeline

from hf_llm import compose, evaluate, predict, train
from hf_llm.config import InputError
from hf_llm.metrics.text_generation import generation_report
from hf_llm.tasks.baseline import nearest_rows
from hf_llm.tasks.sentences import first_sentences, sentences

ENCODER_DECODERS = ("t5", "bart", "marian")
CAUSAL = ("gpt2", "rnn", "fnn")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder, and the run of each architecture in it."""
    folder = tmp_path_factory.mktemp("seq2seq")
    return folder, {arch: train(compose(*translator(folder, arch, run=arch))) for arch in (*ENCODER_DECODERS, *CAUSAL)}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(run, arch):
    auto = AutoModelForSeq2SeqLM if arch in ENCODER_DECODERS else AutoModelForCausalLM
    folder = run.folder / "model"
    return auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def loss_by_hand(model, tokenizer, source, target):
    """Summed negative log-likelihood of one target, and its tokens, without padding."""
    ids = tokenizer(source)["input_ids"]
    if model.config.is_encoder_decoder:
        wanted = tokenizer(text_target=target)["input_ids"]
        start = [tokenizer.pad_token_id, *wanted[:-1]]
        logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([start])).logits[0]
    else:
        wanted = [*tokenizer(target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logits = model(input_ids=torch.tensor([[*ids, *wanted[:-1]]])).logits[0, len(ids) - 1 :]
    assert wanted[-1] == tokenizer.eos_token_id
    return -logits.log_softmax(-1)[range(len(wanted)), wanted].sum().item(), len(wanted)


@pytest.mark.parametrize("arch", [*ENCODER_DECODERS, *CAUSAL])
def test_the_loss_is_the_mean_over_the_tokens_of_the_first_target(arch, runs):
    folder, trained = runs
    model, tokenizer = saved(trained[arch], arch)
    found = [loss_by_hand(model, tokenizer, r["source"], r["target"][0]) for r in lines(folder / "held.jsonl")]
    expected = sum(loss for loss, _ in found) / sum(count for _, count in found)
    assert trained[arch].metrics["validation"]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("arch", [*ENCODER_DECODERS, *CAUSAL])
def test_figures_and_texts_do_not_depend_on_the_batch(arch, runs):
    folder, trained = runs
    asked = [f"run={trained[arch].folder}", "trainer.use_cpu=true"]
    measured = trained[arch].metrics["validation"]
    written = lines(trained[arch].folder / "predictions.jsonl")
    for size in (1, 4, 11):
        batch = f"trainer.per_device_eval_batch_size={size}"
        found = evaluate(compose("evaluate", *asked, batch))
        assert found["loss"] == pytest.approx(measured["loss"], rel=1e-6)
        of_texts = found.keys() - {"loss", "perplexity"}
        assert {name: found[name] for name in of_texts} == {name: measured[name] for name in of_texts}
        assert predict(compose("predict", *asked, batch, f"input={folder}/held.jsonl")) == written
    rows = lines(folder / "held.jsonl")
    assert [row["source"] for row in written] == [row["source"] for row in rows]
    assert [row["reference"] for row in written] == [row["target"] for row in rows]
    report = generation_report([r["prediction"] for r in written], [r["target"] for r in rows], ["bleu", "chrf"])
    assert {name: measured[name] for name in report} == report


@pytest.mark.parametrize("arch", [*ENCODER_DECODERS, *CAUSAL])
def test_plain_transformers_writes_the_same_from_the_saved_model(arch, runs):
    _, trained = runs
    model, tokenizer = saved(trained[arch], arch)
    for row in lines(trained[arch].folder / "predictions.jsonl"):
        inputs = tokenizer(row["source"], return_tensors="pt")  # ends with what says that the target is to come
        output = model.generate(**inputs)[0]
        start = 1 if arch in ENCODER_DECODERS else inputs["input_ids"].shape[1]
        assert tokenizer.decode(output[start:], skip_special_tokens=True).strip() == row["prediction"]


@pytest.mark.parametrize("arch", CAUSAL)
def test_the_text_generation_pipeline_gives_the_same_texts(arch, runs):
    """transformers 5 has no translation, summarization or text2text-generation pipeline any more."""
    _, trained = runs
    writer = pipeline("text-generation", str(trained[arch].folder / "model"), device="cpu")
    for row in lines(trained[arch].folder / "predictions.jsonl")[:4]:
        (found,) = writer(row["source"], return_full_text=False)
        assert found["generated_text"].strip() == row["prediction"]


@pytest.mark.parametrize("arch", ENCODER_DECODERS)
def test_the_ends_of_a_new_encoder_decoder_are_the_tokenizers(arch, runs):
    _, trained = runs
    model, tokenizer = saved(trained[arch], arch)
    for config in (model.config, model.generation_config):
        assert config.decoder_start_token_id == config.pad_token_id == tokenizer.pad_token_id
        assert config.eos_token_id == tokenizer.eos_token_id
        assert getattr(config, "forced_eos_token_id", None) in (None, tokenizer.eos_token_id)
    assert tokenizer("red cat")["input_ids"][-1] == tokenizer.eos_token_id


def test_micro_batches_add_up_to_the_loss_and_gradient_of_the_whole(runs):
    _, trained = runs
    for arch in ("t5", "gpt2"):
        trainer, model = trained[arch].trainer, trained[arch].model.eval()
        rows = [trainer.train_dataset[index] for index in range(7)]
        count = sum(len(row["labels"]) for row in rows)

        def gradient(batches, trainer=trainer, model=model, count=count):
            model.zero_grad()
            losses = [trainer.compute_loss(model, trainer.data_collator(b), num_items_in_batch=count) for b in batches]
            sum(losses).backward()
            return sum(losses).item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

        whole, parts = gradient([rows]), gradient([rows[:1], rows[1:3], rows[3:]])
        assert whole[0] == pytest.approx(parts[0], rel=1e-5)
        assert torch.allclose(whole[1], parts[1], atol=1e-5)


@pytest.mark.parametrize(("arch", "rate"), [("t5", "5e-3"), ("gpt2", "3e-3")])
def test_a_small_model_learns_to_turn_words_round(arch, rate, tmp_path):
    learn = {"trainer.max_steps": "300", "trainer.per_device_train_batch_size": "16", "trainer.learning_rate": rate}
    metrics = train(compose(*translator(tmp_path, arch, run="learnt", **learn))).metrics["validation"]
    assert metrics["loss"] < 0.3
    assert metrics["chrf"] > 80


def test_the_settings_of_generate_hold_and_travel_with_the_model(tmp_path, runs):
    beams = train(
        compose(*translator(tmp_path, run="beams", **{"task.generation": "{num_beams: 3,max_new_tokens: 2}"}))
    )
    config = GenerationConfig.from_pretrained(beams.folder / "model")
    assert (config.num_beams, config.max_new_tokens) == (3, 2)
    assert beams.metrics["validation"]["gen_len"] <= 2
    assert runs[1]["marian"].model.generation_config.max_new_tokens == 12  # task.max_target_length


def test_what_is_measured_while_training_is_what_is_measured_after(tmp_path):
    options = {"trainer.eval_strategy": "steps", "trainer.save_strategy": "steps"}
    options |= {"trainer.eval_steps": "2", "trainer.save_steps": "2"}
    options |= {"trainer.metric_for_best_model": "chrf", "trainer.load_best_model_at_end": "true"}
    run = train(compose(*translator(tmp_path, run="best", **options)))
    while_training = [entry for entry in run.trainer.state.log_history if "eval_chrf" in entry]
    assert len(while_training) == 2
    best = max(while_training, key=lambda entry: entry["eval_chrf"])
    assert run.metrics["validation"]["chrf"] == pytest.approx(best["eval_chrf"])
    assert run.metrics["validation"]["loss"] == pytest.approx(best["eval_loss"])


def test_a_pretrained_model_keeps_its_weights_and_grows_for_new_tokens(tmp_path, runs):
    for arch in ("t5", "gpt2"):
        before, tokenizer = saved(runs[1][arch], arch)
        tokenizer.add_tokens([f"new{i}" for i in range(50)])
        tokenizer.save_pretrained(tmp_path / arch)
        options = {"model.pretrained": runs[1][arch].folder / "model", "tokenizer.pretrained": tmp_path / arch}
        overrides = [
            o for o in translator(tmp_path, arch, run=f"grown_{arch}") if not o.startswith(("model", "token"))
        ]
        run = train(compose(*overrides, *(f"{k}={v}" for k, v in options.items()), "model=pretrained",
                            "trainer.learning_rate=1e-9"))  # fmt: skip
        after = run.model.get_input_embeddings().weight
        assert len(after) == len(before.get_input_embeddings().weight) + 50
        assert torch.allclose(after[:-50], before.get_input_embeddings().weight, atol=1e-6)
        assert type(run.model) is type(before)


def test_a_pretrained_causal_tokenizer_gets_a_separator(tmp_path):
    lm = train(compose(*language_model(tmp_path, run="lm")))
    assert lm.tokenizer.sep_token is None
    overrides = [o for o in translator(tmp_path, "gpt2", run="tuned") if not o.startswith(("model", "tokenizer"))]
    pretrained = ["model=pretrained", f"model.pretrained={lm.folder / 'model'}"]
    run = train(compose(*overrides, "tokenizer=auto", *pretrained))
    assert run.tokenizer.sep_token == "<sep>"
    assert all(row["input_ids"][-1] == run.tokenizer.sep_token_id for row in run.trainer.train_dataset)


def test_a_source_prefix_is_read_and_long_texts_are_cut_and_counted(tmp_path, caplog):
    options = {"task.source_prefix": "'red red: '", "task.max_source_length": "5", "task.max_target_length": "3"}
    run = train(compose(*translator(tmp_path, "t5", run="cut", **options)))
    rows = run.trainer.train_dataset
    sources = run.tokenizer.batch_decode(list(rows["input_ids"]))
    assert all(text.startswith("red red") and text.endswith("</s>") for text in sources)
    assert max(map(len, rows["input_ids"])) == 5
    assert all(len(ids) <= 3 and ids[-1] == run.tokenizer.eos_token_id for ids in rows["labels"])
    assert "train: 48 of 60 sources were cut to task.max_source_length=5" in caplog.text
    assert "train: 36 of 60 targets were cut to task.max_target_length=3" in caplog.text
    assert rows[4]["full_length"] == 3 + 5 + 1 + 5 + 1


def test_each_reference_of_a_training_row_may_be_a_row(tmp_path):
    several = write_pairs(tmp_path, "several.jsonl", 10, "validation")
    for choice, count in (("first", 10), ("each", 20)):
        options = {"data.files.train": several, "task.train_references": choice}
        rows = train(compose(*translator(tmp_path, run=choice, **options))).trainer.train_dataset
        assert len(rows) == count
    assert rows["row"][:4] == [0, 0, 1, 1]
    assert rows[0]["labels"] != rows[1]["labels"]


def test_predict_reads_sources_alone(runs, tmp_path, monkeypatch):
    run = runs[1]["marian"].folder
    monkeypatch.setattr("sys.stdin", io.StringIO("red cat\nblue\n"))
    rows = predict(compose("predict", f"run={run}", "trainer.use_cpu=true"))
    assert [row["source"] for row in rows] == ["red cat", "blue"]
    assert [set(row) for row in rows] == [{"source", "prediction"}] * 2


def test_an_architecture_that_writes_no_text_is_refused(tmp_path):
    given = [option for option in translator(tmp_path) if not option.startswith("model")]
    cfg = compose(*given, "model=arch", "model.arch=vit")
    with pytest.raises(InputError, match=r"^model.arch=vit: a vit writes no text; take an encoder–decoder"):
        train(cfg)


def test_summarization_reports_rouge_beside_the_first_sentences(tmp_path):
    options = {"task.baseline": "1", "task": "summarization"}
    rows = [{"source": f"One cat. Two dogs ran {i}. Three.", "target": "Two dogs ran."} for i in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    given = [*translator(tmp_path, "t5", run="sum", **options), f"data.files.train={path}", f"data.files.test={path}"]
    metrics = train(compose(*given)).metrics
    assert metrics["test, first 1"] == generation_report(
        ["One cat."] * 20, [["Two dogs ran."]] * 20, ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    )
    scores = {"loss", "perplexity", "rouge1", "rouge2", "rougeL", "rougeLsum", "gen_len"}
    assert set(metrics["test"]) == scores | {"chance", "warnings"}


@pytest.mark.parametrize("arch", ["t5", "gpt2"])
def test_by_extraction_a_summary_is_the_likeliest_sentence_of_its_source(arch, tmp_path):
    rows = [
        {"source": f"{' '.join(WORDS[i % 8 :])}. {WORDS[i % 5]} ran. {WORDS[-i % 7]}!", "target": WORDS[i % 4]}
        for i in range(30)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "held.jsonl").write_text("\n".join(map(json.dumps, rows[3:14])))
    options = {"task": "summarization", "task.extractive": "true", "task.max_source_length": "32"}
    given = [*translator(tmp_path, arch, run=arch, **options), f"data.files.train={tmp_path / 'rows.jsonl'}"]
    run = train(compose(*given, f"data.files.validation={tmp_path / 'rows.jsonl'}"))
    model, tokenizer = saved(run, arch)
    written = lines(run.folder / "predictions.jsonl")
    for row, found in zip(rows, written, strict=True):
        losses = {}
        for sentence in sentences(row["source"]):
            loss, count = loss_by_hand(model, tokenizer, row["source"], sentence)
            losses[sentence] = loss / count
        assert len(losses) == 3
        assert losses[found["prediction"]] == pytest.approx(min(losses.values()), rel=1e-5)
    asked = [f"run={run.folder}", "trainer.use_cpu=true", "trainer.per_device_eval_batch_size=3"]
    assert predict(compose("predict", *asked, f"input={tmp_path / 'rows.jsonl'}")) == written


def test_the_baselines_are_the_nearest_row_and_the_first_sentences():
    train_texts = ["a red cat", "two blue dogs", "the red cat sat"]
    assert nearest_rows(train_texts, ["blue dogs", "red cat sat", "a red cat"], "word").tolist() == [1, 2, 0]
    assert nearest_rows(["你好吗", "我喜欢猫"], ["喜欢猫吗"], "char").tolist() == [1]
    text = 'We use e.g. cats (Li et al. 2017). "Dogs, too!" they say. v1.5 is old? 是的。好！'
    first, *others = sentences(text)
    assert first == "We use e.g. cats (Li et al. 2017)."
    assert others == ['"Dogs, too!"', "they say.", "v1.5 is old?", "是的。", "好！"]
    assert first_sentences(text, 1) == "We use e.g. cats (Li et al. 2017)."
    assert sentences("no end") == ["no end"]


@pytest.mark.slow
def test_two_processes_train_measure_and_write_as_one(tmp_path):
    each = ROOT / "tests" / "distributed" / "each.py"
    still = {"t5": "model.config.dropout_rate=0", "gpt2": "model.config.resid_pdrop=0"}
    more = {"gpt2": ["model.config.embd_pdrop=0", "model.config.attn_pdrop=0"]}
    found = {}
    for processes, size in ((1, 4), (2, 2)):
        calls = []
        for arch, dropout in still.items():
            run = f"{arch}_{processes}"
            options = {"run": run, "trainer.max_steps": "6", "trainer.logging_steps": "1",
                       "trainer.per_device_train_batch_size": size}  # fmt: skip
            calls.append(["train", [*translator(tmp_path, arch, **options), dropout, *more.get(arch, [])]])
            asked = [f"run={tmp_path}/outputs/{arch}_1", "trainer.use_cpu=true"]
            for batch in (1, 3):
                one = f"trainer.per_device_eval_batch_size={batch}"
                calls += [["evaluate", [*asked, one]], ["predict", [*asked, one, f"input={tmp_path}/held.jsonl"]]]
        (tmp_path / "calls.json").write_text(json.dumps(calls))
        launch(tmp_path, processes, each, tmp_path / "calls.json", tmp_path / "results.json")
        found[processes] = json.loads((tmp_path / "results.json").read_text())
    for (verb, _), one, two in zip(calls, found[1], found[2], strict=True):
        if verb == "train":
            assert len(one["loss"]) == 6
            assert furthest(two["loss"], one["loss"]) < 1e-5
        else:
            assert two == one
