"""`demo`: a page in the browser on which to try a trained model, made with Gradio, on this machine alone.

What the page says is what `hf-llm predict` says: a visitor's text goes through the same reading, encoding and Trainer.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_llm import console, runs
from hf_llm.config import DataConfig, DemoConfig, InputError

if TYPE_CHECKING:
    import gradio

    from hf_llm.saved import SavedModel

MODEL = "model"  # the queue of whatever asks the model, which answers one at a time
HOST = "127.0.0.1"  # never another: what is to be seen elsewhere is shared, and that is asked for
# The boxes of a task's page: canonical columns, as `predict` reads them.
BOXES = {
    "text_classification": ("text",),
    "masked_lm": ("text",),
    "token_classification": ("words",),
    "semantic_role_labelling": ("words",),
    "question_answering": ("question", "context"),
    "translation": ("source",),
    "summarization": ("source",),
}
WRITTEN_OUT = ("token_classification", "semantic_role_labelling")  # whose input is a line of text, not an object


def demo(cfg: DemoConfig) -> gradio.Blocks:
    """The page, not yet shown.

    Raises:
        InputError: no such run or model, or Gradio is not installed.
    """
    console.set_up()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing about the visitor leaves the machine
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError("demo needs Gradio: pip install 'hf_llm[demo]'") from error
    from hf_llm import saved
    from hf_llm.demo import attention

    loaded = saved.load(cfg)
    _to_device(loaded, cfg.device)
    name = cfg.run or cfg.model.pretrained or ""
    with gr.Blocks(title=f"hf_llm: {Path(name).name}", analytics_enabled=False) as page:
        gr.Textbox(f"{Path(name).name}: {type(loaded.model).__name__}", show_label=False, container=False, lines=1)
        with gr.Tab("Try it"):
            _writing(gr, loaded) if not loaded.task.predicts else _predicting(gr, loaded)
        if attention.has_attention(loaded.model):
            with gr.Tab("Attention"):
                _looking(gr, loaded)
    return page.queue(default_concurrency_limit=1)  # one model, one at a time


def _to_device(loaded: SavedModel, device: str | None) -> None:
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = loaded.model
    try:
        model.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={chosen}: {str(error).splitlines()[0]}") from error


def predictor(loaded: SavedModel) -> Callable[..., dict[str, Any]]:
    """A function: what stands in the boxes of the task's page -> the row that `predict` gives for it.

    Raises (the function): InputError, as `predict`.
    """
    from hf_llm import data

    name = _name(loaded)
    with tempfile.TemporaryDirectory() as scratch:  # Trainer makes its folder, and a prediction writes nothing there
        args = loaded.task.arguments({**loaded.trainer({}), "disable_tqdm": True, "report_to": "none"}, scratch)
        trainer: Any = loaded.task.trainer(loaded.model, args, {}, loaded.tokenizer)

    def predict(*boxes: str) -> dict[str, Any]:
        if not all(text and text.strip() for text in boxes):
            raise InputError("empty: write something first")
        if name in WRITTEN_OUT:
            text, source = " ".join(boxes[0].split()), DataConfig(format="txt")
        else:
            text, source = json.dumps(dict(zip(BOXES[name], boxes, strict=True))), DataConfig(format="jsonl")
        rows = data.read(io.StringIO(text + "\n"), source, loaded.task.input_columns())
        return next(iter(loaded.task.predict(trainer, rows, loaded.tokenizer)))

    return predict


def _name(loaded: SavedModel) -> str:
    """`text_classification`, of the class that the file of that name defines."""
    return type(loaded.task).__module__.rpartition(".")[2]


def _told(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose complaint about an input is shown on the page."""

    def call(*boxes: Any) -> Any:
        try:
            return function(*boxes)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def _predicting(gr: Any, loaded: SavedModel) -> None:
    name, predict = _name(loaded), predictor(loaded)
    boxes = [gr.Textbox(label=box, lines=3 if box != "question" else 1) for box in BOXES[name]]
    button = gr.Button("Predict", variant="primary")
    if name == "text_classification":
        output: Any = gr.Label(label="label", num_top_classes=10)
    elif name == "token_classification":
        output = gr.HighlightedText(label="tags")
    elif name in ("translation", "summarization"):
        output = gr.Textbox(label="prediction", lines=3)
    else:
        output = gr.JSON(label="prediction")

    def show(*given: str) -> Any:
        row = predict(*given)
        if name == "text_classification":
            return row["scores"]
        if name == "token_classification":
            pairs = zip(row["words"], row["tags"], strict=True)
            return [(f"{word} ", None if tag == "O" else tag) for word, tag in pairs]
        if name in ("translation", "summarization"):
            return row["prediction"]
        return {key: value for key, value in row.items() if key not in BOXES[name]}

    gr.on([button.click, boxes[-1].submit], _told(gr, show), boxes, output, concurrency_id=MODEL)


def writer(loaded: SavedModel) -> Callable[..., Iterator[str]]:
    """A function: prompt and settings -> the text so far, again and again as it grows. Closing it ends the writing."""
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer, set_seed

    from hf_llm.generation import check_room, encoded, settings

    class Stopped(StoppingCriteria):
        def __init__(self) -> None:
            self.asked = threading.Event()

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            import torch

            return torch.full((input_ids.shape[0],), self.asked.is_set(), device=input_ids.device)

    def write(
        prompt: str, max_new_tokens: int, temperature: float, top_p: float, sample: bool, seed: int
    ) -> Iterator[str]:
        model: Any = loaded.model
        tokenizer: Any = loaded.tokenizer
        wanted: dict[str, Any] = {"max_new_tokens": int(max_new_tokens), "do_sample": bool(sample)}
        if sample:
            wanted |= {"temperature": float(temperature), "top_p": float(top_p)}
        chosen = settings(wanted, model, tokenizer)
        prompt = prompt or ""
        inputs = encoded([prompt], tokenizer).to(model.device)
        check_room(inputs["input_ids"].shape[1], chosen, model)
        streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=120)
        stop = Stopped()
        failed: list[Exception] = []

        def generate() -> None:
            try:
                set_seed(int(seed))
                criteria = StoppingCriteriaList([stop])
                model.generate(**inputs, generation_config=chosen, streamer=streamer, stopping_criteria=criteria)
            except Exception as error:  # told by the thread that reads
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        so_far = prompt
        try:
            for piece in streamer:
                so_far += piece
                yield so_far
        finally:
            stop.asked.set()
            thread.join()
        if failed:
            raise InputError(f"generation: {' '.join(str(failed[0]).split())}")

    return write


def _writing(gr: Any, loaded: SavedModel) -> None:
    write = writer(loaded)
    room = getattr(loaded.model.config, "max_position_embeddings", None) or 2048
    prompt = gr.Textbox(label="prompt", lines=3)
    with gr.Row():
        length = gr.Slider(1, min(room, 1000), value=min(room // 2, 60), step=1, label="max_new_tokens")
        temperature = gr.Slider(0.1, 2.0, value=0.8, step=0.1, label="temperature")
        top_p = gr.Slider(0.05, 1.0, value=1.0, step=0.05, label="top_p")
    with gr.Row():
        sample = gr.Checkbox(True, label="do_sample (else greedy)")
        seed = gr.Number(42, precision=0, minimum=0, label="seed")
    with gr.Row():
        start = gr.Button("Write", variant="primary")
        stop = gr.Button("Stop")
    output = gr.Textbox(label="written", lines=10)

    def told(*given: Any) -> Iterator[str]:
        try:
            yield from write(*given)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    running = start.click(told, [prompt, length, temperature, top_p, sample, seed], output, concurrency_id=MODEL)
    stop.click(None, cancels=[running])


def _looking(gr: Any, loaded: SavedModel) -> None:
    from hf_llm.demo import attention

    config: Any = loaded.model.config
    model = attention.looking(loaded.model)
    text = gr.Textbox(label="text", info=f"its first {attention.LONGEST} tokens", lines=2)
    with gr.Row():
        last = config.num_hidden_layers
        layer = gr.Slider(1, last, value=last, step=1, label="layer") if last > 1 else gr.State(1)
        head = gr.Slider(0, config.num_attention_heads, value=0, step=1, label="head (0: the mean of all)")
    button = gr.Button("Show", variant="primary")
    plot = gr.Plot(label="attention", format="png")

    def look(given: str, layer: int, head: int) -> Any:
        if not given or not given.strip():
            raise InputError("empty: write something first")
        names, shares = attention.weights(model, loaded.tokenizer, given)
        which = f"head {int(head)}" if head else "mean of all heads"
        return attention.picture(
            names, attention.chosen(shares, int(layer), int(head) or None), f"layer {int(layer)}, {which}"
        )

    gr.on([button.click, text.submit], _told(gr, look), [text, layer, head], plot, concurrency_id=MODEL)


def demo_command(cfg: DemoConfig) -> None:
    """`hf-llm demo`: the page, until Ctrl-C."""
    if not runs.is_main_process():
        return
    if cfg.port is not None and not 1 <= cfg.port <= 65535:
        raise InputError(f"port={cfg.port}: choose one from 1 to 65535")
    page = demo(cfg)
    try:
        _, address, public = page.launch(
            server_name=HOST,
            server_port=cfg.port,
            share=cfg.share,
            inbrowser=cfg.browser,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
        )
    except OSError as error:  # also where all from 7860 on are taken
        raise InputError(f"port={cfg.port}: in use; choose another, or leave it out: {error}") from error
    console.say(f"{address} (Ctrl-C ends it)" + (f"; for anybody: {public}" if public else ""))
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
