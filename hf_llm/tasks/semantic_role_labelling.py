"""Semantic role labelling: who did what to whom, for each predicate of a sentence, as PropBank has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_llm.config import InputError
from hf_llm.tasks.base import BERT_TOKENS, Fitting, Outcome, Splits, Task, encode_cached, tokenizer_key, unprefixed

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from hf_llm.metrics.chance import Chance

logger = logging.getLogger(__name__)


@dataclass
class SemanticRoleLabelling(Task):
    """A BIO tag for each word, for each predicate: the sentence is read once for each, with the predicate marked.

    With `identify_predicates` the same model also learns to read the sentence with nothing marked, and then tags the
    predicates themselves, B-V: so one model does the whole of it, in two passes.
    """

    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    architecture_endings: ClassVar[tuple[str, ...]] = ()  # a saved one is not told from other classifiers of tokens
    columns: ClassVar[Mapping[str, str]] = {"words": "words", "predicate": "predicate?", "tags": "roles"}
    sample_by: ClassVar[str] = "line"
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    has_classes: ClassVar[bool] = True
    target: ClassVar[str | None] = "tags"
    unit: ClassVar[str] = "rows"

    chance: ClassVar[Mapping[str, str]] = {"loss": "the tag frequencies", "f1": "no argument"}
    principal: ClassVar[tuple[str, ...]] = ("f1",)

    max_length: int = 256  # tokens; of a longer sentence the words nearest to the predicate are read
    predicate_marking: Literal["markers", "segment_ids", "sep_predicate"] = "markers"
    identify_predicates: bool = True  # also learn to find the predicates of a sentence
    baseline: bool = False  # also report what a rule scores that goes by positions alone

    def longest_input(self) -> int:
        return self.max_length

    def metric_names(self, labels: list[str] | None) -> list[str]:
        names = labels or ["O"]
        roles = {name[2:].removeprefix("C-") for name in names if name != "O"} - {"V"}
        found = ["B-A0"] if not roles else [f"B-{role}" for role in sorted(roles)]
        from hf_llm.metrics.roles import predicate_report, role_report

        asked = list(predicate_report([], [])) if self.identify_predicates else []
        return ["loss", *role_report([found], [found]), *asked]

    def baseline_metrics(self, raw: Mapping[str, Dataset], split: str) -> dict[str, dict[str, Any]]:
        if not self.baseline:
            return {}
        from hf_llm.metrics.roles import role_report
        from hf_llm.tasks.position_rule import PositionRule

        rule = PositionRule.fitted(_propositions(raw["train"]))
        logger.info("position rule, fitted on train: %s", rule)
        words, predicates, tags = _propositions(raw[split])
        return {"position rule": role_report(map(rule, words, predicates), tags)}

    def encode(self, raw: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> Splits:
        """An input for each row with a predicate, and with `identify_predicates` one for each sentence.

        Adds `input_ids`, the place of each word's `first` sub-word, `labels` and what `propositions.examples` says of
        them. Splits other than train come sorted by length, which saves padding.
        """
        import numpy as np
        from datasets import Dataset

        from hf_llm.tasks.propositions import MARKERS, PropositionEncoder, examples

        if self.predicate_marking == "markers" and "train" in raw:
            tokenizer.add_tokens(list(MARKERS), special_tokens=True)
        encoder = PropositionEncoder(tokenizer, self.max_length, self.predicate_marking)
        key = ["semantic_role_labelling", *tokenizer_key(tokenizer), self.max_length, self.predicate_marking]
        splits: Splits = {}
        for name, rows in raw.items():
            self._check(name, rows)
            columns = examples(rows, self.identify_predicates, self._outside_and_verb(rows))
            tokenize = partial(_encode, encoder=encoder)
            settings = {"batched": True, "remove_columns": list(columns)}
            encoded = encode_cached(Dataset.from_dict(columns), tokenize, key, **settings, desc=f"tokenising {name}")
            unread = sum(encoded["unread"])
            if unread:
                logger.info("%s: %d words lie too far from their predicate to be read (task.max_length)", name, unread)
            longest_first = np.argsort(-np.asarray(encoded["length"]), kind="stable")
            splits[name] = encoded if name == "train" else encoded.select(longest_first)
        return splits

    def _check(self, name: str, rows: Dataset) -> None:
        given = rows["predicate"][:] if "predicate" in rows.column_names else [None] * len(rows)
        if name == "train" and all(predicate is None for predicate in given):
            raise InputError("train: no row has a predicate: name its column by data.columns.predicate")
        if "tags" in rows.column_names or self.identify_predicates or None not in given:
            return
        if all(predicate is None for predicate in given):
            raise InputError(
                "no row of the input has a predicate, and the model was trained with task.identify_predicates=false: "
                'give JSON lines with "words" and "predicate", or CoNLL with data.columns.predicate'
            )
        missing = given.count(None)
        logger.info("%s: %d of %d rows are sentences without a predicate, and get no roles", name, missing, len(given))

    def _outside_and_verb(self, rows: Dataset) -> tuple[int, int] | None:
        """The ids of O and B-V, where rows have tags; any, where there is nothing to find."""
        if "tags" not in rows.column_names:
            return None
        names = rows.features["tags"].feature.names
        missing = [tag for tag in ("O", "B-V") if tag not in names]
        if missing and self.identify_predicates:
            raise InputError(
                f"no word has the tag {missing[0]}, so predicates cannot be learnt: tag them B-V and what has no role "
                "O, or set task.identify_predicates=false"
            )
        return (0, 0) if missing else (names.index("O"), names.index("B-V"))

    def fitting(self, model: Any, args: TrainingArguments, splits: Splits, tokenizer: Any) -> Fitting:
        from hf_llm.tasks.role_trainer import RoleCollator, RoleTrainer, segments

        if self.predicate_marking == "segment_ids" and segments(model) < 2:
            config: Any = model.config
            raise InputError(
                f"task.predicate_marking=segment_ids: {config.model_type} has no embedding of segments "
                "(type_vocab_size); set it to markers or sep_predicate"
            )
        return RoleTrainer, {"measure": self.measured, "data_collator": RoleCollator(tokenizer, model)}

    def measured(
        self,
        found: Sequence[np.ndarray],
        true: Sequence[np.ndarray],
        predicates: Sequence[int],
        names: Sequence[str],
    ) -> dict[str, float]:
        """The metrics of tags, as ids of `names`, of examples."""
        from hf_llm.metrics.roles import predicate_report, role_report
        from hf_llm.tasks.propositions import NO_PREDICATE

        roles: list[tuple[list[str], list[str]]] = []
        verbs: list[tuple[set[int], set[int]]] = []
        for ours, theirs, predicate in zip(found, true, predicates, strict=True):
            pair = [names[tag] for tag in ours], [names[tag] for tag in theirs]
            if predicate == NO_PREDICATE:
                verbs.append((_verbs(pair[0]), _verbs(pair[1])))
            else:
                roles.append(pair)
        report = role_report([ours for ours, _ in roles], [theirs for _, theirs in roles])
        if self.identify_predicates:
            report |= predicate_report([ours for ours, _ in verbs], [theirs for _, theirs in verbs])
        return report

    def outcome(self, trainer: Any, raw: Dataset, encoded: Any, split: str = "test") -> Outcome:
        """Metrics with the predicates given; and for each row the arguments of its predicate, or where it has none
        given, of those that are found."""
        has_tags = "tags" in raw.column_names
        if has_tags:
            trainer.names = raw.features["tags"].feature.names
        read, figures = trainer.readings(encoded, split)
        given = raw["predicate"][:] if "predicate" in raw.column_names else [None] * len(raw)
        tags: list[dict[int, list[str]]] = [{} for _ in given]  # of each row: predicate -> tags
        found: list[tuple[int, int]] = []  # rows without a predicate, with those found
        for row, predicate in enumerate(given):
            if predicate is not None:
                tags[row][predicate] = [trainer.labels[tag] for tag in read[row]]
            elif (example := len(given) + row) in read:
                found += [(row, verb) for verb in sorted(_verbs([trainer.labels[tag] for tag in read[example]]))]
        for (row, predicate), own in zip(found, self._roles_of(found, trainer, raw, split), strict=True):
            tags[row][predicate] = own
        return Outcome(unprefixed(figures, split) if has_tags else {}, _predictions(raw, tags))

    def compare_with_chance(self, trainer: Any, raw: Dataset, encoded: Any, outcome: Outcome, train: Any) -> Chance:
        """F1 of arguments, predicate by predicate."""
        import numpy as np

        from hf_llm.metrics.chance import Chance, label_entropy, span_comparison
        from hf_llm.metrics.roles import PREDICATE, arguments
        from hf_llm.tasks.propositions import NO_PREDICATE
        from hf_llm.tasks.token_trainer import in_order

        (_, classes), (tags, words, about) = trainer.kept
        _, first = np.unique(about[:, 0], return_index=True)
        pairs = zip(*(in_order(values, words, about[:, :1]) for values in (classes, tags)), strict=True)
        rows = [pair for pair, predicate in zip(pairs, about[first, 1], strict=True) if predicate != NO_PREDICATE]

        def given(tags: np.ndarray) -> set[Any]:
            found = arguments([trainer.names[tag] for tag in tags])
            return {argument for argument in found if argument[0] != PREDICATE}

        def kind(argument: Any) -> tuple[str, tuple[int, ...]]:
            return argument[0], tuple(stop - start for start, stop in argument[1])

        scores = {"loss": label_entropy(tags[tags >= 0]), "f1": 0.0}
        found, true = [given(ours) for ours, _ in rows], [given(theirs) for _, theirs in rows]
        if not any(true):
            return Chance(scores, untold="no predicate has an argument")
        compared = span_comparison(found, true, kind, sum(len(tags) for _, tags in rows))
        return Chance(scores, [compared], None if any(found) else "no argument")

    def chance_loss(self, train: Any, tokenizer: PreTrainedTokenizerBase) -> float | None:
        from hf_llm.tasks.token_classification import tag_entropy

        return tag_entropy(train)

    def _roles_of(self, found: Sequence[tuple[int, int]], trainer: Any, raw: Dataset, split: str) -> list[list[str]]:
        """The second pass: the tags of each predicate that the first has found."""
        if not found:
            return []
        from datasets import Dataset

        words = raw["words"][:]
        rows = Dataset.from_dict({"words": [words[row] for row, _ in found], "predicate": [verb for _, verb in found]})
        read, _ = trainer.readings(self.encode({"found": rows}, trainer.processing_class)["found"], split)
        return [[trainer.labels[tag] for tag in read[index]] for index in range(len(found))]

    def picture(self, prediction: dict[str, Any]) -> Any:
        from hf_llm.tasks.role_table import role_table

        return role_table(prediction)


def _verbs(tags: Sequence[str]) -> set[int]:
    return {word for word, tag in enumerate(tags) if tag == "B-V"}


def _propositions(rows: Dataset) -> tuple[list[list[str]], list[int], list[list[str]]]:
    """Words, predicate and tags of the rows that have a predicate."""
    names = rows.features["tags"].feature.names
    there = [
        (words, predicate, [names[tag] for tag in tags])
        for words, predicate, tags in zip(rows["words"], rows["predicate"], rows["tags"], strict=True)
        if predicate is not None
    ]
    words, predicates, tags = map(list, zip(*there, strict=True)) if there else ([], [], [])
    return words, predicates, tags


def _predictions(raw: Dataset, tags: Sequence[Mapping[int, list[str]]]) -> Iterator[dict[str, Any]]:
    """A row for each of `raw`: its words, each predicate with its arguments, and its own tags where it has them."""
    from hf_llm.metrics.roles import PREDICATE, arguments

    names = raw.features["tags"].feature.names if "tags" in raw.column_names else None
    for row, of_predicate in zip(raw, tags, strict=True):
        words = row["words"]
        predicates = [
            {
                "predicate": predicate,
                "word": words[predicate],
                "arguments": [
                    {"role": role, "text": " … ".join(" ".join(words[a:b]) for a, b in spans), "spans": spans}
                    for role, spans in arguments(own)
                    if role != PREDICATE
                ],
                "tags": own,
            }
            for predicate, own in of_predicate.items()
        ]
        reference = {"reference": [names[tag] for tag in row["tags"]]} if names else {}
        yield {"words": words, "predicates": predicates, **reference}


def _encode(batch: dict[str, list[Any]], encoder: Any) -> dict[str, list[Any]]:
    """Columns of inputs: one for each predicate; the windows of each sentence whose predicates are to be found."""
    from hf_llm.tasks.propositions import NO_PREDICATE, UNREAD

    has_tags = "tags" in batch
    columns: dict[str, list[Any]] = {}

    def add(index: int, input_ids: list[int], words: Sequence[int], first: list[int], types: list[int] | None) -> None:
        row: dict[str, Any] = {name: batch[name][index] for name in ("predicate", "row", "example")}
        row |= {"input_ids": input_ids, "words": list(words), "first": first, "length": len(input_ids)}
        row |= {"full_length": len(input_ids), "unread": first.count(UNREAD)}
        if encoder.marking != "markers":
            row["token_type_ids"] = types or [0] * len(input_ids)
        if has_tags:
            tags = [batch["tags"][index][word] for word in words]
            row["tags"] = tags
            row["labels"] = [-100 if place == UNREAD else tag for tag, place in zip(tags, first, strict=True)]
        for name, value in row.items():
            columns.setdefault(name, []).append(value)

    to_find = [index for index, predicate in enumerate(batch["predicate"]) if predicate == NO_PREDICATE]
    others = [index for index, predicate in enumerate(batch["predicate"]) if predicate != NO_PREDICATE]
    found = encoder([batch["words"][i] for i in others], [batch["predicate"][i] for i in others])
    for index, example in zip(others, found, strict=True):
        words = range(len(batch["words"][index]))
        add(index, example["input_ids"], words, example["first"], example.get("token_type_ids"))
    for index, windows in zip(to_find, encoder.plain([batch["words"][i] for i in to_find]), strict=True):
        for window in windows:
            add(index, window.input_ids, window.words, window.first, None)
    return columns
