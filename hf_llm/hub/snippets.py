"""The code of a model card: it runs as it stands, where transformers is installed and the model is on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from hf_llm.hub.markdown import fenced

_PIPELINE = """\
from transformers import pipeline

model = pipeline("$pipeline", model="$repo"$trust)
print(model($example))"""

_ANSWER = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$repo"$trust)
model = AutoModelForQuestionAnswering.from_pretrained("$repo"$trust)
question, context = "Where is the cat?", "The cat sleeps in the garden all day."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs)
first, last = scores.start_logits.argmax(), scores.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, first : last + 1]))"""

_REWRITE = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$repo"$trust)
model = AutoModelForSeq2SeqLM.from_pretrained("$repo"$trust)
inputs = tokenizer("I like cats.", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"""

_CONTINUE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$repo"$trust)
model = AutoModelForCausalLM.from_pretrained("$repo"$trust)
source = "I like cats." + (tokenizer.sep_token or "")  # source, separator; then the target is written
inputs = tokenizer(source, return_tensors="pt", return_token_type_ids=False, add_special_tokens=False)
target = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(target, skip_special_tokens=True))"""

_TAGS = """\
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$repo"$trust)
model = AutoModelForTokenClassification.from_pretrained("$repo"$trust)
inputs = tokenizer("The cat sees the dog.", return_tensors="pt")
with torch.no_grad():
    tags = model(**inputs).logits.argmax(-1)[0].tolist()
print([(token, model.config.id2label[tag]) for token, tag in zip(inputs.tokens(), tags)])"""

_EXAMPLES = {
    "causal_lm": ("text-generation", '"It was", max_new_tokens=40'),
    "masked_lm": ("fill-mask", 'f"It was a {model.tokenizer.mask_token} day."'),
    "text_classification": ("text-classification", '"a text of yours"'),
    "token_classification": ("token-classification", '"The cat sees the dog."'),
}
_PREDICTING = "hf-llm predict run={repo} input=FILE output=predictions.jsonl"


def snippet(task: str, repo: str, model: Mapping[str, Any], trust: bool) -> str:
    """A block of Python for a model whose config.json is `model`; `trust`: it brings its own code."""
    pipeline, example = _EXAMPLES.get(task, ("", ""))
    code = _PIPELINE
    if task == "question_answering":
        code = _ANSWER
    elif task in ("translation", "summarization"):
        code = _REWRITE if model.get("is_encoder_decoder") else _CONTINUE
    elif task == "semantic_role_labelling":
        code = _TAGS
    trusted = ", trust_remote_code=True" if trust else ""
    filled = Template(code).substitute(repo=repo, trust=trusted, pipeline=pipeline, example=example)
    return fenced("python", filled)


def commands(task: str, repo: str) -> str:
    """The same by this package's own commands."""
    if task == "causal_lm":
        return f'hf-llm generate run={repo} prompt="It was"\nhf-llm evaluate run={repo} data.files=FILE'
    return f"{_PREDICTING.format(repo=repo)}\nhf-llm evaluate run={repo} data.files=FILE"
