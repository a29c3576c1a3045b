"""BLEU, chrF and ROUGE equal what sacrebleu and rouge_score say of the same texts, and a count by hand."""

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from hf_llm.config import InputError
from hf_llm.metrics import text_generation
from hf_llm.metrics.text_generation import CharacterTokenizer, bleu_tokenizer, generation_report

WORDS = st.lists(
    st.sampled_from(["the", "cats", "cat", "sat", "on", "mats", "running", ".", "我", "喜欢", "猫", "。"])
)
TEXT = WORDS.map(" ".join)
ROWS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=6)


@given(ROWS, st.sampled_from([None, "zh", "ja", "de"]))
@settings(max_examples=60, deadline=None)
def test_bleu_and_chrf_are_sacrebleus(rows, language):
    texts, references = [text for text, _ in rows], [given for _, given in rows]
    report = generation_report(texts, references, ["bleu", "chrf"], language=language)
    columns = [[row[i] if i < len(row) else None for row in references] for i in range(max(map(len, references)))]
    tokenize = {None: "13a", "de": "13a", "zh": "zh", "ja": "char"}[language]
    assert report["bleu"] == sacrebleu.corpus_bleu(texts, columns, tokenize=tokenize).score
    assert report["chrf"] == sacrebleu.corpus_chrf(texts, columns).score
    assert f"tok:{tokenize}|" in report["bleu_signature"]
    assert report["chrf_signature"].startswith("nrefs:")


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_rouge_is_the_mean_of_the_best_reference_of_each_text(rows):
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    report = generation_report([t for t, _ in rows], [given for _, given in rows], names)
    scorer = RougeScorer(names, use_stemmer=True)
    for name in names:
        best = [max(scorer.score(reference, text)[name].fmeasure for reference in given) for text, given in rows]
        assert report[name] == pytest.approx(100 * sum(best) / len(best), abs=1e-9)


def test_rouge_of_chinese_counts_characters():
    report = generation_report(["我爱北京"], [["我爱天安门。"]], ["rouge1", "rouge2", "rougeL"], language="zh-CN")
    # 2 of the 4 characters are among the reference's 5, 1 of the 3 pairs among its 4
    assert report["rouge1"] == pytest.approx(100 * 2 * 2 / (4 + 5))
    assert report["rouge2"] == pytest.approx(100 * 2 * 1 / (3 + 4))
    assert report["rougeL"] == report["rouge1"]


@given(st.text())
def test_the_character_tokenizer_loses_no_letter_or_digit(text):
    tokens = CharacterTokenizer().tokenize(text)
    assert "".join(tokens) == "".join(c for c in text.lower() if c.isalnum())
    assert all(len(token) == 1 or token.isascii() for token in tokens)


def test_rouge_lsum_takes_lines_for_sentences():
    names = ["rougeL", "rougeLsum"]
    turned = generation_report(["b c\na d"], [["a d\nb c"]], names)
    assert turned["rougeLsum"] == 100 > turned["rougeL"]
    assert len(set(generation_report(["b c a d"], [["a d b c"]], names).values())) == 1


def test_stems_are_compared_in_english_alone():
    assert generation_report(["cats"], [["cat"]], ["rouge1"])["rouge1"] == 100
    assert generation_report(["cats"], [["cat"]], ["rouge1"], stemmer=False)["rouge1"] == 0
    assert generation_report(["cats"], [["cat"]], ["rouge1"], language="fr")["rouge1"] == 0


@pytest.mark.parametrize(
    ("language", "tokenizer"), [(None, "13a"), ("zh", "zh"), ("zh_TW", "zh"), ("ZH-hans", "zh"), ("ja", "char")]
)
def test_the_target_language_decides_how_bleu_cuts_words(language, tokenizer):
    assert bleu_tokenizer(language) == tokenizer


def test_an_unknown_metric_and_a_missing_package_are_one_line(monkeypatch):
    with pytest.raises(InputError, match=r"^task.metrics: rogue1 is not one of bleu.*; did you mean rouge1\?$"):
        generation_report([""], [[""]], ["rogue1"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"bleu needs the package sacrebleu: pip install 'hf_llm\[seq2seq\]'$"):
        text_generation.available(["bleu"])
