"""Trained tokenizers are reproducible and round-trip; pretrained ones are the real ones or are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

from hf_llm import tokenizer as tokenizers
from hf_llm.config import InputError, TokenizerConfig

LM = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
BERT = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
TEXTS = [
    "The cat sat on the mat.\nThe dog, however, didn't!\n\n",
    "三国演义：话说天下大势，分久必合。",
    "Naïve café — 12.5 % “quoted” 😀🏽 \tthe end",
] * 3
ALGORITHMS = ["byte_level_bpe", "wordpiece", "unigram", "word", "char", "byte"]
LEARNT = [name for name in ALGORITHMS if name != "byte"]


def trained(algorithm, special_tokens=LM, texts=TEXTS, **options):
    cfg = TokenizerConfig(**{"algorithm": algorithm, "vocab_size": 600, "min_frequency": 1, **options})
    return tokenizers.load(cfg, lambda: [texts[:4], texts[4:]], special_tokens=special_tokens)


def pretrained(folder, special_tokens=LM, **options):
    return tokenizers.load(TokenizerConfig(pretrained=str(folder), **options), None, special_tokens=special_tokens)


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    """A bare WordPiece vocabulary."""
    words = [*BERT.values(), "hello", "world", "##s", "中", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("algorithm", ["byte_level_bpe", "unigram", "char", "byte"])
@pytest.mark.parametrize("text", [*TEXTS[:3], "  two  hens\r\n", "the cat"])
def test_known_characters_round_trip(algorithm, text):
    tokenizer = trained(algorithm, texts=[*TEXTS, "  \r\n"])
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("algorithm", ["byte_level_bpe", "byte"])
def test_bytes_round_trip_what_was_never_seen(algorithm):
    tokenizer = trained(algorithm)
    text = "Ünseen 龘 🏴‍☠️ \x00\u2028 русский"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.unk_token is None


def test_the_id_of_a_byte_is_its_value():
    tokenizer = trained("byte")
    text = "aé中😀\n"
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (258, 256, 257)


def test_bytes_need_no_train_split():
    cfg = TokenizerConfig(algorithm="byte")
    assert len(tokenizers.load(cfg, None, special_tokens=BERT)) == 260


def test_a_char_tokenizer_has_the_characters_and_the_special_tokens():
    tokenizer = trained("char", texts=["abba\n", "c"])
    assert tokenizer.tokenize("a\nz") == ["a", "\n", "<unk>"]
    assert set(tokenizer.get_vocab()) == {"<|endoftext|>", "<|pad|>", "<unk>", "a", "b", "c", "\n"}


def test_words_are_whole_and_decode_as_one_writes_them():
    tokenizer = trained("word")
    text = "The dog, however, didn't!\n三国演义：话说天下大势。"
    assert tokenizer.tokenize(text)[:6] == ["The", "dog", ",", "however", ",", "didn't"]
    assert "国" in tokenizer.tokenize(text)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("The zebra") == ["The", "<unk>"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lower_casing_is_learnt_and_applied(algorithm):
    tokenizer = trained(algorithm, lowercase=True)
    assert tokenizer("THE CAT")["input_ids"] == tokenizer("the cat")["input_ids"]


@pytest.mark.parametrize("algorithm", LEARNT)
@pytest.mark.parametrize("size", [300, 310])
def test_the_vocabulary_is_never_larger_than_asked(algorithm, size):
    texts = ["".join(chr(0x4E00 + i) for i in range(200)), *TEXTS]  # more characters than leave room for merges
    assert len(trained(algorithm, BERT, texts, vocab_size=size)) <= size


def test_wordpiece_drops_the_rarest_characters_where_they_do_not_fit():
    tokenizer = trained("wordpiece", BERT, ["aaa bbb aa bb 中中", "z"], vocab_size=9)
    assert len(tokenizer) <= 9
    assert tokenizer.tokenize("aa") != ["[UNK]"]
    assert tokenizer.tokenize("z") == ["[UNK]"]


@pytest.mark.parametrize("special_tokens", [LM, BERT], ids=["lm", "bert"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_saved_tokenizer_comes_back_the_same(algorithm, special_tokens, tmp_path):
    tokenizer = trained(algorithm, special_tokens)
    tokenizer.save_pretrained(tmp_path)
    for model_type in (None, "gpt2", "bert", "llama"):  # as it lies in a run's folder beside the model's config
        if model_type:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        for again in (AutoTokenizer.from_pretrained(tmp_path), pretrained(tmp_path, special_tokens)):
            assert again(TEXTS[0], TEXTS[1]) == tokenizer(TEXTS[0], TEXTS[1])
            assert again.special_tokens_map == tokenizer.special_tokens_map
            assert (len(again), again.padding_side) == (len(tokenizer), tokenizer.padding_side)
    assert str(tmp_path) not in (tmp_path / "tokenizer_config.json").read_text()


def test_classification_texts_stand_between_cls_and_sep_and_pairs_have_types():
    tokenizer = trained("wordpiece", BERT)
    single, pair = tokenizer("the cat"), tokenizer("the cat", "the dog")
    assert tokenizer.decode(single["input_ids"]) == "[CLS] the cat [SEP]"
    assert tokenizer.decode(pair["input_ids"]) == "[CLS] the cat [SEP] the dog [SEP]"
    assert pair["token_type_ids"] == [0] * len(single["input_ids"]) + [1] * (
        len(pair["input_ids"]) - len(single["input_ids"])
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_language_model_gets_eos_and_pad_and_no_frame(algorithm):
    tokenizer = trained(algorithm)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert tokenizer("")["input_ids"] == []
    assert tokenizer("a<|endoftext|>")["input_ids"][-1] == tokenizer.eos_token_id


def test_training_gives_the_same_file_in_every_process_and_with_any_number_of_threads():
    code = (
        "import hashlib, unicodedata\n"
        "from hf_llm import tokenizer as tokenizers\n"
        "from hf_llm.config import TokenizerConfig\n"
        "names = [unicodedata.name(chr(i), '') for i in range(33, 1500)]\n"
        # Characters that occur only inside longer pieces: unigram has no score of their own for them.
        "texts = names + [f'ab{chr(0x4E00 + i)}cd{end}' for i in range(30) for end in 'xyzw'] * 9\n"
        f"for algorithm in {LEARNT}:\n"
        "    cfg = TokenizerConfig(algorithm=algorithm, vocab_size=400)\n"
        f"    tokenizer = tokenizers.load(cfg, lambda: [texts], special_tokens={BERT})\n"
        "    print(algorithm, hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest())\n"
    )
    settings = [{}, {"TOKENIZERS_PARALLELISM": "false"}, {"RAYON_NUM_THREADS": "5"}]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **s}, capture_output=True, text=True, check=True
        )
        for s in settings
    ]
    assert len(runs[0].stdout.splitlines()) == len(LEARNT)
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout


@pytest.mark.parametrize(
    ("options", "texts", "message"),
    [
        ({"algorithm": "bpe"}, TEXTS, r"bpe is unknown; there are byte_level_bpe, "),
        ({"algorithm": "byte_level_bpe", "vocab_size": 257}, TEXTS, r"vocab_size=257 is too small.* at least 258"),
        ({"algorithm": "word", "vocab_size": 3}, TEXTS, r"vocab_size=3 is too small.* at least 4"),
        ({"algorithm": "unigram", "vocab_size": 20}, TEXTS, r"cannot hold the \d+ different characters"),
        ({"algorithm": "word", "min_frequency": 99}, TEXTS, r"min_frequency=99"),
        *(({"algorithm": name}, ["", " \n"], r"holds no text") for name in LEARNT),
        *(({"algorithm": name}, [], r"holds no text") for name in LEARNT),
    ],
)
def test_a_training_that_cannot_be_is_refused_in_one_line(options, texts, message):
    with pytest.raises(InputError, match=message) as error:
        trained(options.pop("algorithm"), texts=texts, **options)
    assert "\n" not in str(error.value)


def test_training_without_a_train_split_is_refused():
    with pytest.raises(InputError, match=r"needs a train split.*tokenizer\.pretrained"):
        tokenizers.load(TokenizerConfig(algorithm="word"), None, special_tokens=LM)


def test_a_bare_bert_vocabulary_without_capitals_is_uncased(vocabulary):
    tokenizer = pretrained(vocabulary, BERT)
    assert tokenizer.tokenize("Hello WORLDS中") == ["hello", "world", "##s", "中"]
    assert len(tokenizer) == 10


def test_a_bare_bert_vocabulary_with_capitals_is_cased_unless_asked(vocabulary):
    with (vocabulary / "vocab.txt").open("a") as file:
        file.write("Hello\n")
    assert pretrained(vocabulary, BERT).tokenize("Hello hello") == ["Hello", "hello"]
    assert pretrained(vocabulary, BERT, lowercase=True).tokenize("Hello hello") == ["hello", "hello"]


def test_a_bare_tokenizer_json_gets_its_roles_by_name(tmp_path):
    trained("wordpiece", BERT).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = pretrained(tmp_path, BERT)
    assert {role: getattr(tokenizer, role) for role in BERT} == BERT
    assert "token_type_ids" in tokenizer("a", "b")


def test_a_missing_eos_is_added_and_a_missing_pad_is_eos(tmp_path, caplog):
    caplog.set_level("INFO", logger="hf_llm")
    trained("word", {"pad_token": "[PAD]"}).save_pretrained(tmp_path)
    tokenizer = pretrained(tmp_path, LM)
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert "added <|endoftext|>" in caplog.text
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": None, "eos_token": "[PAD]"}))
    tokenizer = pretrained(tmp_path, LM)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer.* there is nothing"),
        ({"config.json": '{"model_type": "bert"}'}, "holds no tokenizer.* there is config.json"),
        ({"vocab.json": "{}"}, "merges.txt"),
        ({"vocab.json": "{", "merges.txt": ""}, "cannot be read"),
        ({"tokenizer.json": "{}"}, "cannot be read: Model missing"),
        ({"tokenizer_config.json": '{"tokenizer_class": "GPT2Tokenizer"}'}, "its 1 special tokens only"),
        (
            {
                "vocab.txt": "a\n" * 9 + "b\nc\nd\n",
                "tokenizer_config.json": '{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": '
                '{"0": {"content": "x", "special": false}}}',
            },
            "loads with 2 of its 4 tokens.*GPT2Tokenizer",
        ),
        ({"vocab.txt": "hello\nworld\n"}, r"Missing \[UNK\]"),
        ({"vocab.json": json.dumps({f"t{i}": i for i in range(999)}), "merges.txt": "#version: 0.2\n"}, "too few"),
        ({"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["x.X", null]}}'}, "cannot be read"),
    ],
)
def test_a_folder_without_a_real_tokenizer_is_refused_in_one_line(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_class_that_does_not_fit_the_vocabulary_is_refused(tmp_path):
    trained("byte_level_bpe").save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(InputError, match=r"tokenizer\.pretrained="):
        pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "no such folder"),
        ("some-org/some-model", "offline"),
        ("", "is empty"),
        (__file__, "is a file; give its folder"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_in_one_line(name, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message) as error:
        pretrained(name)
    assert "\n" not in str(error.value)


def test_a_tokenizer_in_python_only_is_refused_in_one_line(tmp_path):
    ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is a ByT5Tokenizer, .* in Python only; .*tokenizer=byte") as error:
        pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_sentencepiece_model_encodes_as_sentencepiece_does(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "text.txt").write_text("\n".join(t.replace("\n", " ") for t in TEXTS * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=58, minloglevel=2
    )
    tokenizer = pretrained(tmp_path)
    original = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for text in ("The cat sat", "  two  spaces ", "三国演义"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == original.encode(text)
    assert tokenizer.decode(tokenizer("The cat sat")["input_ids"]) == "The cat sat"


def test_the_bare_gpt2_vocabulary_is_the_real_tokenizer(shared_data):
    tokenizer = pretrained(shared_data / "tokenizers" / "gpt2")
    assert len(tokenizer) == 50257
    assert tokenizer("Hello World")["input_ids"] == [15496, 2159]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (50256, 50256)
    assert tokenizer.decode(tokenizer("三国 😀\n")["input_ids"]) == "三国 😀\n"


@pytest.mark.parametrize(
    ("name", "size", "ids"),
    [("bert-base-uncased", 30522, [101, 7592, 2088, 102]), ("bert-base-chinese", 21128, [101, 8701, 8572, 102])],
)
def test_the_bare_bert_vocabularies_are_the_real_tokenizers(name, size, ids, shared_data):
    tokenizer = pretrained(shared_data / "tokenizers" / name, BERT)
    assert len(tokenizer) == size
    assert tokenizer("Hello World")["input_ids"] == ids
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id] == [0, 100, 103]


def test_a_pretrained_llama_keeps_its_size_and_pads_with_eos(shared_data):
    tokenizer = pretrained(shared_data / "models" / "stories260K")
    assert (len(tokenizer), tokenizer.pad_token) == (512, "</s>")
    assert tokenizer("Once")["input_ids"][0] == tokenizer.bos_token_id
