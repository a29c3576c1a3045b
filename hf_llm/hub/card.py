"""A run's model card: what the model is, how to use it, how good it is, on what data, and how it was made.

All of it comes from the run directory (config.yaml, environment.json, metrics.json, model/), so that it can be written
again at any time. A card that a person has edited is left as it is: its last line no longer fits the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_llm import runs
from hf_llm.config import TrainConfig
from hf_llm.hub import CARD, capsule, is_repo_id
from hf_llm.hub.markdown import cell, code, fenced, interval, number, share, table
from hf_llm.hub.published import LARGEST, public_config
from hf_llm.hub.redaction import public, public_command
from hf_llm.hub.snippets import commands, snippet
from hf_llm.hub.words import WORDS

# task -> the Hub's name of what it does
PIPELINES = {
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
    "text_classification": "text-classification",
    "token_classification": "token-classification",
    "semantic_role_labelling": "token-classification",
    "question_answering": "question-answering",
    "translation": "translation",
    "summarization": "summarization",
}
# Metrics that a card's metadata has, where a run has them; those of single classes stay in the tables.
PRINCIPAL = (
    *("accuracy", "precision", "recall", "f1", "mcc", "perplexity", "bits_per_byte", "word_perplexity"),
    *("exact_match", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum"),
)
MARK = "<!-- hf_llm wrote this card ({}). Edit it as you like: it is then left as it is. -->"


def write(folder: Path, cfg: TrainConfig, repo: str | None = None) -> Path:
    """The card of the finished run in `folder`, as its README.md; one that was edited by hand stays."""
    path = folder / CARD
    if not is_edited(path):
        runs.write(path, text(folder, cfg, repo or folder.resolve().name))
    return path


def is_edited(path: Path) -> bool:
    """Whether the card is another than `write` left there."""
    if not path.is_file():
        return False
    try:
        body, _, mark = path.read_text(encoding="utf-8").rstrip().rpartition("\n")
    except UnicodeDecodeError:  # not by `write`
        return True
    return mark != MARK.format(_digest(body))


def _digest(body: str) -> str:
    return hashlib.sha256(body.strip().encode()).hexdigest()[:16]


def text(folder: Path, cfg: TrainConfig, repo: str) -> str:
    """The card, metadata and all. `repo`: OWNER/NAME, or the run's name while there is none."""
    environment = capsule.record(folder / runs.ENVIRONMENT)
    metrics = capsule.record(folder / runs.METRICS, LARGEST)
    model = capsule.record(folder / runs.MODEL / "config.json", LARGEST)
    body = _Card(folder, cfg, repo, environment, metrics, model).body()
    metadata = _metadata(cfg, repo, metrics, model).to_yaml()
    whole = f"---\n{metadata}\n---\n\n{body.strip()}"
    return f"{whole}\n\n{MARK.format(_digest(whole))}\n"


def _metadata(cfg: TrainConfig, repo: str, metrics: Mapping[str, Any], model: Mapping[str, Any]) -> ModelCardData:
    hub_data = cfg.data.path if cfg.data.path and is_repo_id(cfg.data.path) else None
    kind = PIPELINES.get(cfg.task["name"], "other")
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=hub_data or "local",
            dataset_name=hub_data or public(str(cfg.data.path or "local files")),
            dataset_config=cfg.data.subset,
            dataset_split=split,
            dataset_revision=cfg.data.revision,
            metric_type=name,
            metric_value=values[name],
        )
        for split, values in _measured(metrics)
        for name in PRINCIPAL
        if isinstance(values.get(name), (int, float))
    ]
    base = cfg.model.pretrained if cfg.model.pretrained and is_repo_id(cfg.model.pretrained) else None
    return ModelCardData(
        license=cfg.card.license,
        library_name="transformers",
        pipeline_tag=kind if kind != "other" else None,
        tags=["hf_llm", str(model.get("model_type"))],
        datasets=[hub_data] if hub_data else None,
        base_model=base,
        model_name=repo,
        eval_results=results or None,
    )


def _measured(metrics: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The held-out splits; what a baseline reaches on them goes under the split's name, a comma and its own."""
    return [(name, values) for name, values in metrics.items() if name != "train" and ", " not in name]


class _Card:
    def __init__(self, folder: Path, cfg: TrainConfig, repo: str, environment, metrics, model) -> None:
        self.folder, self.cfg, self.repo = folder, cfg, repo
        self.environment, self.metrics, self.model = environment, metrics, model
        self.words = WORDS[cfg.card.language or "en"]

    def say(self, phrase: str, **values: Any) -> str:
        return self.words[phrase].format(**values)

    def body(self) -> str:
        template = (Path(__file__).parent / f"card.{self.cfg.card.language or 'en'}.md").read_text(encoding="utf-8")
        trust = bool(self.model.get("auto_map"))
        filled = Template(template).substitute(
            title=self.repo.rpartition("/")[2],
            description=self.cfg.card.description or self.description(),
            snippet=snippet(self.cfg.task["name"], self.repo, self.model, trust),
            commands=commands(self.cfg.task["name"], self.repo),
            results="\n\n".join(self.results()),
            data="\n\n".join(self.data()),
            training=table(["", ""], self.training()),
            curve=f"![{self.say('curve')}](loss_curve.png)" if (self.folder / "loss_curve.png").is_file() else "",
            command=self.command(),
            config=fenced("yaml", self.config()),
            repo=self.repo,
            limits="\n".join(f"* {line}" for line in self.limits()),
        )
        return re.sub(r"\n{3,}", "\n\n", filled)

    def command(self) -> str:
        """As it was typed, with paths cut short; nothing where a script or a notebook trained it."""
        given = str(self.environment.get("command"))
        ours = given.startswith("hf-llm ") or "hf_llm" in given or "train.py" in given
        return fenced("sh", public_command(given)) if ours else ""

    def config(self) -> str:
        return yaml.safe_dump(public_config(self.folder), sort_keys=False, allow_unicode=True).strip()

    def description(self) -> str:
        return self.say(
            "tuned" if self.cfg.model.pretrained else "scratch",
            architecture=cell(str((self.model.get("architectures") or ["?"])[0])),
            parameters=f"{self.environment.get('parameters') or 0:,}",
            base=cell(str(public(self.cfg.model.pretrained or ""))),
            task=self.words.get(self.cfg.task["name"], self.cfg.task["name"]),
            data=self.source(),
        )

    def source(self) -> str:
        if self.cfg.data.path:
            return code(str(public(self.cfg.data.path)))
        files = self.cfg.data.files.get("train") if isinstance(self.cfg.data.files, Mapping) else self.cfg.data.files
        names = [str(public(str(name))) for name in (files if isinstance(files, list) else [files]) if name]
        return self.say("local", names=", ".join(map(code, names)))

    def results(self) -> Iterable[str]:
        columns = [name for name in self.metrics if name != "train"]
        if not columns:
            yield self.words["no_split"]
            return
        names = list(dict.fromkeys(name for column in columns for name in self.metrics[column]))
        labels = self.labels()
        single = {f"{kind}_{label}" for label in labels for kind in ("precision", "recall", "f1")}
        rows = [
            [code(name), *(number(self.metrics[column].get(name)) for column in columns)]
            for name in names
            if name not in single and any(_is_scalar(self.metrics[column].get(name)) for column in columns)
        ]
        for column in columns:
            for warning in self.metrics[column].get("warnings") or ():
                yield self.say("warning", text=cell(str(warning)))
        yield table([self.words["metric"], *map(cell, columns)], rows)
        for split, values in _measured(self.metrics):
            if scores := (values.get("chance") or {}).get("scores"):
                known = ", ".join(f"{code(str(name))} {number(value)}" for name, value in scores.items())
                yield self.say("chance", split=cell(split), scores=known)
        for split, values in _measured(self.metrics):
            if "confusion_matrix" in values:
                yield from self.classes(split, values["confusion_matrix"], labels)

    def classes(self, split: str, matrix: list[list[int]], labels: list[str]) -> Iterable[str]:
        """Precision and recall are shares of counts that the matrix has, and so have intervals."""
        count = sum(map(sum, matrix))
        right = sum(matrix[index][index] for index in range(len(matrix)))
        picture, split = runs.of_split("confusion_matrix.png", split), cell(split)
        low, high = interval(right, count)
        yield self.say("interval", split=split, value=number(right / count), low=low, high=high, rows=f"{count:,}")
        rows = []
        for index, label in enumerate(labels):
            found, true, said = matrix[index][index], sum(matrix[index]), sum(row[index] for row in matrix)
            rows.append([cell(label), f"{true:,}", share(found, said), share(found, true)])
        yield self.say("classes", split=split)
        yield table([self.words[word] for word in ("class", "rows", "precision", "recall")], rows)
        if re.fullmatch(r"[\w.-]+", picture) and (self.folder / picture).is_file():
            yield f"{self.say('matrix', split=split)}\n\n![{self.say('matrix', split=split)}]({picture})"

    def labels(self) -> list[str]:
        named = self.model.get("id2label") or {}
        return [label for _, label in sorted((int(index), label) for index, label in named.items())]

    def data(self) -> Iterable[str]:
        fingerprint = self.environment.get("data_fingerprint")
        if fingerprint and not re.fullmatch(r"[0-9a-f]{8,128}", str(fingerprint)):
            fingerprint = "?"  # no digest
        yield self.say(
            "source",
            source=self.source(),
            license=self.cfg.card.data_license or self.words["no_license"],
            fingerprint=fingerprint or self.words["streamed"],
        )
        read, used = self.environment.get("read") or {}, self.environment.get("rows") or {}
        rows = []
        for split in used:
            account = read.get(split) or {}
            reasons = (account.get("left_out") or {}).items()
            left_out = cell(", ".join(f"{count:,} {reason}" for reason, count in reasons))
            total = f"{account['read']:,}" if account else self.words["of_train"]
            rows.append([cell(split), total, f"{used[split]:,}" if used[split] is not None else "?", left_out or "0"])
        if rows:
            yield table([self.words[word] for word in ("split", "read", "used", "left_out")], rows)

    def training(self) -> list[list[str]]:
        train, environment = self.metrics.get("train") or {}, self.environment
        facts = [("steps", f"{train['steps']:,}" if "steps" in train else None)]
        facts += [("tokens", f"{environment['tokens']:,}" if environment.get("tokens") else None)]
        seconds = train.get("runtime")
        facts += [("seconds", self.say("resumed", seconds=f"{seconds:,.0f}") if seconds is not None else None)]
        facts += [("hardware", _hardware(environment.get("hardware")))]
        facts += [("energy", self.energy(seconds))]
        packages = environment.get("packages") or {}
        named = [("hf_llm", environment.get("hf_llm")), ("Python", environment.get("python")), *packages.items()]
        facts += [("versions", cell(", ".join(f"{name} {version}" for name, version in named if version)))]
        facts += [("processes", cell(str(environment.get("num_processes"))))]
        facts += [("seed", cell(str(environment.get("seed"))))]
        commit = str(environment.get("git_commit"))
        facts += [("commit", f"`{commit}`" if re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", commit) else None)]
        return [[self.words[name], value] for name, value in facts if value]

    def energy(self, seconds: float | None) -> str | None:
        measured = _codecarbon(self.folder / "emissions.csv")
        if measured is not None:
            return self.say("measured", kwh=f"{measured:.2g}")
        hardware = self.environment.get("hardware")
        if not hardware or not seconds:
            return None
        watts = 12 * hardware["threads"] * self.environment.get("num_processes", 1) + 0.3725 * hardware["memory_gib"]
        watts += 200 * len(hardware["accelerators"])
        return self.say("estimated", kwh=f"{watts * seconds / 3.6e6:.2g}", watts=f"{watts:.0f}")

    def limits(self) -> Iterable[str]:
        yield self.words["limit_data"]
        name = self.cfg.task["name"]
        if name in ("causal_lm", "translation", "summarization"):
            yield self.words["limit_lm"]
        if name == "text_classification":
            yield self.say("limit_classes", count=len(self.labels()))
        length = self.cfg.task.get("max_length") or self.cfg.task.get("block_size")
        if length:
            yield self.say("limit_length", length=cell(str(length)))
        rows = [
            sum(map(sum, values["confusion_matrix"]))
            for _, values in _measured(self.metrics)
            if "confusion_matrix" in values
        ]
        if rows and min(rows) < 1000:
            yield self.say("limit_small", rows=f"{min(rows):,}")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _hardware(hardware: Mapping[str, Any] | None) -> str | None:
    if not hardware:
        return None
    parts = [*hardware["accelerators"], f"{hardware['processor']}, {hardware['threads']} threads"]
    return cell("; ".join([*parts, f"{hardware['memory_gib']:.0f} GiB"]))


def _codecarbon(path: Path) -> float | None:
    """kWh that CodeCarbon wrote (`trainer.report_to=codecarbon`), of all starts; None where it wrote none."""
    import csv

    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        starts = {row["run_id"]: float(row["energy_consumed"]) for row in rows}  # each grows from line to line
    except (KeyError, ValueError):
        return None
    return sum(starts.values()) if starts else None
