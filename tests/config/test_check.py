import dataclasses

import pytest
from transformers import AutoConfig, GenerationConfig, GPT2Config, TrainingArguments

from hf_llm import InputError, compose
from hf_llm.config import TrainConfig, check, declared
from hf_llm.config.known import OPTIONS, RANGES

DEFAULTS = GenerationConfig._get_default_generation_params()


def plain(**changes):
    """A composed configuration as plain containers, with some keys changed."""
    cfg = dataclasses.asdict(TrainConfig())
    cfg["model"]["arch"] = "gpt2"
    cfg["task"] = {"name": "causal_lm"}
    for key, value in changes.items():
        *path, last = key.split("__")
        node = cfg
        for name in path:
            node = node[name]
        node[last] = value
    return cfg


def mistakes(**changes) -> str:
    with pytest.raises(InputError) as error:
        check(plain(**changes), TrainConfig)
    return str(error.value)


def test_the_fields_read_from_source_are_those_of_the_classes():
    assert set(declared.trainer_fields()) == {field.name for field in dataclasses.fields(TrainingArguments)}
    generation = declared.generation_fields()
    assert set(generation) == {name for name in vars(GenerationConfig()) if name[0] != "_"}
    plain_defaults = {
        name: value for name, value in DEFAULTS.items() if value is not None and generation[name] != "Any"
    }
    assert len(plain_defaults) > 20
    assert all(type(value).__name__ in generation[name] for name, value in plain_defaults.items())
    own = {name for name in vars(GPT2Config()) if not name.startswith("_")}
    assert own - set(declared.model_fields("gpt2")) <= {"transformers_version", "architectures"} | own & {
        "torchscript",
        "name_or_path",
    }
    assert "hidden_size" in declared.model_fields("gpt2")  # through attribute_map


@pytest.mark.parametrize("arch", ["rnn", "fnn"])
def test_the_fields_of_this_packages_own_architectures_are_known_without_torch(arch):
    import hf_llm.models  # noqa: F401  registers them

    fields = declared.model_fields(arch)
    assert {name for name in vars(AutoConfig.for_model(arch)) if not name.startswith("_")} - set(fields) <= {
        "transformers_version", "architectures", "torchscript", "name_or_path",
    }  # fmt: skip
    with pytest.raises(
        InputError, match=r"model.config.hidden_sise: no such key; did you mean model.config.hidden_size"
    ):
        check(plain(model__arch=arch, model__config={"hidden_sise": 3}), TrainConfig)


def test_every_trainer_field_is_accepted_with_its_own_default():
    defaults = {}
    for field in dataclasses.fields(TrainingArguments):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = getattr(field.default, "value", field.default)
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    assert check(plain(trainer=defaults), TrainConfig).trainer == defaults


def test_one_message_lists_every_mistake_with_the_nearest_key():
    text = mistakes(
        trainer={"learning_rat": 1, "weight_decay": "much"},
        model__config={"n_layr": 2},
        data__pth="x",
        task={"name": "causal_lm", "blocksize": 3},
    )
    assert text.splitlines()[0] == "5 mistakes in the configuration:"
    for line in (
        "trainer.learning_rat: no such key; did you mean trainer.learning_rate?",
        "trainer.weight_decay: 'much' is not a number",
        "model.config.n_layr: no such key; did you mean model.config.n_layer? (model.arch=gpt2)",
        "data.pth: no such key; did you mean data.path?",
        "task.blocksize: no such key; did you mean task.block_size? (task.name=causal_lm)",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("evaluation_strategy", "trainer.eval_strategy"),
        ("group_by_length", "trainer.train_sampling_strategy=group_by_length"),
        ("warmup_ratio", "trainer.warmup_steps"),
        ("overwrite_output_dir", "run=NAME"),
    ],
)
def test_a_renamed_argument_is_answered_with_the_new_one(key, new):
    assert new in mistakes(trainer={key: 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"max_steps": 1.5}}, "trainer.max_steps: 1.5 is not a whole number"),
        ({"trainer": {"bf16": "yes"}}, "trainer.bf16: 'yes' is not true or false"),
        ({"trainer": {"num_train_epochs": None}}, "trainer.num_train_epochs: None is not a number"),
        ({"data__streaming": 1}, "data.streaming: 1 is not true or false"),
        ({"data__limits": 5}, "data.limits: 5 is not a group of keys"),
        ({"data__bad_rows": "drop"}, "data.bad_rows: 'drop' is not one of error, skip"),
        ({"model__arch": "gtp2"}, "did you mean gpt2?"),
        ({"task": {"name": "causal"}}, "did you mean causal_lm?"),
        ({"task": {}}, "task: missing; choose one of causal_lm, masked_lm, question_answering, "),
        ({"model__arch": None}, "model: neither arch nor pretrained"),
        ({"model__config": {"num_labels": 3}}, "model.config.num_labels: not set by hand"),
        ({"trainer": {"lr_scheduler_type": "cosin"}}, "did you mean cosine?"),
        ({"data": None}, "data: missing"),
        ({"data": "sms"}, "data: a group of keys, not 'sms'"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(changes, message):
    assert message in mistakes(**changes)


def test_conversions_that_no_one_doubts_are_made():
    cfg = check(
        plain(trainer={"max_steps": 1e3, "num_train_epochs": 2, "run_name": 7, "eval_strategy": False}, run=2024),
        TrainConfig,
    )
    assert cfg.trainer == {"max_steps": 1000, "num_train_epochs": 2.0, "run_name": "7", "eval_strategy": "no"}
    assert type(cfg.trainer["max_steps"]) is int
    assert cfg.run == "2024"


def test_no_tokenizer_chosen_means_the_pretrained_models_own():
    cfg = check(plain(model__arch=None, model__pretrained="folder"), TrainConfig)
    assert cfg.tokenizer.pretrained == "folder"
    assert check(plain(), TrainConfig).tokenizer.algorithm == "byte_level_bpe"


def test_compose_gives_the_same_object_as_the_command_line_would():
    cfg = compose("model=gpt2", "trainer.learning_rate=3e-4", "+trainer.seed=1", "++data.limits.train=5")
    assert isinstance(cfg, TrainConfig)
    assert cfg.trainer["learning_rate"] == 3e-4
    assert cfg.trainer["seed"] == 1
    assert cfg.data.limits == {"train": 5}


def test_data_files_or_pretrained_alone_choose_their_group():
    cfg = compose("data.files.train=a.txt", "model.pretrained=folder")
    assert (cfg.data.path, cfg.data.files) == (None, {"train": "a.txt"})
    assert (cfg.model.arch, cfg.model.config) == (None, {})


def test_choices_that_do_not_exist_are_listed_with_the_other_mistakes():
    with pytest.raises(InputError) as error:
        compose("model=gpt", "tokenizer=bp", "trainer.seeed=1")
    text = str(error.value)
    assert "model=gpt: no such option; did you mean model=gpt2?" in text
    assert "tokenizer=bp: no such option; did you mean tokenizer=bpe?" in text
    assert "trainer.seeed: no such key; did you mean trainer.seed?" in text


def test_a_folder_of_ones_own_joins_the_groups(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("files: {train: mine.csv}\n")
    assert compose("data=mine", config_dir=str(tmp_path)).data.files == {"train": "mine.csv"}


def numbers(fields):
    """Those fields that hold a number."""
    return [name for name, kind in fields.items() if {"int", "float"} & set(kind.replace("|", " ").split())]


def test_every_number_of_the_trainer_and_of_a_task_has_a_range():
    assert [name for name in numbers(declared.trainer_fields()) if f"trainer.{name}" not in RANGES] == []
    signed = {"null_score_diff_threshold"}  # a difference of two scores
    options = {name for task in declared.tasks() for name in numbers(declared.task_fields(task))}
    assert {name for name in options if f"task.{name}" not in RANGES} == signed


def test_the_choices_that_transformers_lists_in_its_source_are_known():
    read = declared.trainer_choices()
    for field in dataclasses.fields(TrainingArguments):
        if choices := field.metadata.get("choices"):
            known = read.get(field.name) or OPTIONS[f"trainer.{field.name}"]
            assert {one for one in known if one is not None} == set(choices)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("trainer.num_train_epochs=-3", "-3 is too small; it is above 0"),
        ("trainer.max_steps=-7", "-7 is too small; it is at least 1; -1 leaves it to trainer.num_train_epochs"),
        ("trainer.adam_beta2=1", "1 is too large; it is below 1"),
        ("trainer.max_grad_norm=-1", "-1 is too small; it is at least 0; 0 clips nothing"),
        ("trainer.save_total_limit=0", "0 is too small; it is at least 1; null keeps all checkpoints"),
        ("trainer.ddp_backend=glo", "'glo' is not one of nccl, .*, null; did you mean gloo?"),
        ("trainer.log_level=loud", "'loud' is not one of detail, debug, info"),
        ("trainer.include_for_metrics=[losses]", "'losses' is not one of inputs, loss"),
        ("trainer.include_num_input_tokens_seen=some", "'some' is not one of true, false, all"),
        ("model.config.resid_pdrop=1.5", "1.5 is too large; it is at most 1"),
        ("model.config.initializer_range=-1", "-1 is too small; it is at least 0"),
        ("data.validation_fraction=1", "1 is too large; it is below 1"),
    ],
)
def test_a_number_or_word_that_cannot_be_is_refused_with_what_would_be_right(value, message):
    with pytest.raises(InputError, match=f"^{value.partition('=')[0]}: {message}"):
        compose("data.files.train=x.txt", value)


@pytest.mark.parametrize(
    "value", ["max_steps=-1", "eval_steps=null", "save_total_limit=null", "ddp_backend=null", "max_grad_norm=0"]
)
def test_what_means_unset_is_taken(value):
    compose("data.files.train=x.txt", f"trainer.{value}")


def test_a_run_of_the_first_format_keeps_what_was_taken_then():
    old = {"task": {"name": "causal_lm"}, "model": {"arch": "gpt2"}, "trainer": {"save_total_limit": 0}}
    with pytest.raises(InputError, match="save_total_limit: 0 is too small"):
        check(old, TrainConfig)
    assert check({**old, "format": 1}, TrainConfig).trainer["save_total_limit"] == 0
