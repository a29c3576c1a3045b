"""The page to try a model on: it says what `predict` says, shows the attention that there is, takes text as text."""

import io
import itertools
import json
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import toys

from hf_llm import InputError, compose, predict, saved, train
from hf_llm import demo as demo_module
from hf_llm.demo import attention, predictor, writer

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'hf_llm[demo]'")


RUNS = {
    "spam": toys.classifier,
    "gpt2": toys.language_model,
    "rnn": lambda folder: toys.language_model(folder, "rnn"),
    "tagger": toys.tagger,
    "masked": toys.masked_language_model,
    "roles": toys.role_labeller,
    "reader": toys.reader,
    "translator": toys.translator,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {
        name: train(compose("train", *options(tmp_path_factory.mktemp(name)), f"run={name}", "preflight=off")).folder
        for name, options in RUNS.items()
    }


def loaded(runs, name):
    return saved.load(compose("demo", f"run={runs[name]}", "device=cpu"))


def components(page, kind):
    return [block for block in page.blocks.values() if type(block).__name__ == kind]


BOXES = {
    "spam": {"text": "red cat dog"},
    "tagger": {"words": "red cat one"},
    "masked": {"text": "red [MASK] one"},
    "roles": {"words": "red cat sees one dog"},
    "reader": {"question": "red cat", "context": "one red cat two dog"},
    "translator": {"source": "red cat one"},
}


@pytest.mark.parametrize("name", BOXES)
def test_the_page_says_what_predict_says(name, runs, monkeypatch):
    boxes = BOXES[name]
    text = boxes["words"] if "words" in boxes else json.dumps(boxes)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n"))
    (expected,) = predict(compose("predict", f"run={runs[name]}", "trainer.use_cpu=true"))
    assert predictor(loaded(runs, name))(*boxes.values()) == expected
    page = demo_module.demo(compose("demo", f"run={runs[name]}", "device=cpu"))
    assert set(boxes) <= {box.label for box in components(page, "Textbox")}


@pytest.mark.parametrize("name", BOXES)
def test_what_a_visitor_wrote_is_not_kept(name, runs, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def files():
        folders = (Path(datasets.config.HF_DATASETS_CACHE), tmp_path, runs[name])
        return {path for folder in folders for path in folder.rglob("*.arrow")}

    ask, before = predictor(loaded(runs, name)), files()
    ask(*(f"{text} green" for text in BOXES[name].values()))
    assert files() == before


def test_a_model_of_one_layer_has_its_page(tmp_path):
    options = [*toys.language_model(tmp_path), "model.config.n_layer=1", "run=one", "preflight=off"]
    page = demo_module.demo(compose("demo", f"run={train(compose('train', *options)).folder}", "device=cpu"))
    assert "layer" not in {slider.label for slider in components(page, "Slider")}


def test_whatever_asks_the_model_waits_in_one_queue(runs):
    page = demo_module.demo(compose("demo", f"run={runs['gpt2']}", "device=cpu"))
    asking = {function.concurrency_id for function in page.fns.values() if function.fn is not None}
    assert asking == {demo_module.MODEL}


@pytest.mark.parametrize("port", [0, 80000, "taken"])
def test_a_port_that_cannot_be_used_is_named(port, runs):
    with socket.socket() as other:
        other.bind((demo_module.HOST, 0))
        other.listen()
        number = other.getsockname()[1] if port == "taken" else port
        with pytest.raises(InputError, match=rf"port={number}: (in use|choose)|port: {number} is too large"):
            demo_module.demo_command(compose("demo", f"run={runs['rnn']}", f"port={number}", "browser=false"))


def test_markup_is_text_and_an_empty_box_is_named(runs):
    ask = predictor(loaded(runs, "spam"))
    assert ask("<script>alert(1)</script>")["text"] == "<script>alert(1)</script>"
    for empty in ("", "  \n"):
        with pytest.raises(InputError, match="empty: write something first"):
            ask(empty)


def test_each_task_has_its_boxes_and_only_transformers_show_attention(runs):
    for name, boxes, tabs in (("spam", ["text"], 2), ("gpt2", ["prompt"], 2), ("rnn", ["prompt"], 1)):
        page = demo_module.demo(compose("demo", f"run={runs[name]}", "device=cpu"))
        assert len(components(page, "Tab")) == tabs, name
        assert set(boxes) <= {box.label for box in components(page, "Textbox")}


def test_what_is_written_is_what_generate_writes_and_it_grows(runs):
    from hf_llm import generate

    options = ["generation.max_new_tokens=12", "generation.do_sample=false"]
    (expected,) = generate(compose("generate", f"run={runs['gpt2']}", "prompt=red ", "device=cpu", *options))
    pieces = list(writer(loaded(runs, "gpt2"))("red ", 12, 1.0, 1.0, False, 1))
    assert pieces[-1] == "red " + expected["text"]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))


def test_writing_that_is_stopped_ends_and_too_long_a_text_is_named(runs):
    write = writer(loaded(runs, "rnn"))
    pieces = write("red ", 100_000, 1.0, 1.0, True, 1)
    next(pieces)
    pieces.close()  # joins the thread that writes: it would go on for minutes
    with pytest.raises(InputError, match="exceed the model's"):
        next(writer(loaded(runs, "gpt2"))("red ", 5000, 1.0, 1.0, True, 1))


@pytest.mark.parametrize("name", ["gpt2", "spam"])
def test_the_weights_shown_are_the_models_own(name, runs):
    import torch

    run = loaded(runs, name)
    model = attention.looking(run.model)
    names, shares = attention.weights(model, run.tokenizer, "red cat one dog")
    inputs = run.tokenizer("red cat one dog", return_tensors="pt")
    own = model(**inputs, output_attentions=True).attentions
    assert shares.shape == (2, 2, len(names), len(names))
    np.testing.assert_allclose(shares[1, 0], own[1][0, 0].detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-5)
    if name == "gpt2":  # no token sees a later one
        assert not np.triu(shares, 1).any()
    np.testing.assert_allclose(attention.chosen(shares, 2, None), shares[1].mean(axis=0))
    np.testing.assert_array_equal(attention.chosen(shares, 1, 2), shares[0, 1])
    assert torch.allclose(model(**inputs).logits, run.model(**inputs).logits, atol=1e-5)
    labels = [label.get_text() for label in attention.picture(names, shares[0, 0], "x").axes[0].get_xticklabels()]
    assert labels == names


def test_without_gradio_it_says_what_to_install(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install 'hf_llm\[demo\]'"):
        demo_module.demo(compose("demo", f"run={runs['rnn']}"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium here: install Debian's packages chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1200,1400", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield opened
    opened.quit()


def visit(browser, page, steps):
    from selenium.webdriver.support.ui import WebDriverWait

    _, address, _ = page.launch(
        server_name=demo_module.HOST, quiet=True, prevent_thread_lock=True, inbrowser=False, ssr_mode=False
    )
    try:
        browser.get(address)
        steps(WebDriverWait(browser, 60))
    finally:
        page.close(verbose=False)
    return address


def fill(browser, label, text):
    from selenium.webdriver.common.by import By

    box = browser.find_element(By.XPATH, f"//label[.//span[normalize-space()='{label}']]//textarea")
    box.clear()
    box.send_keys(text)


def press(browser, name):
    from selenium.webdriver.common.by import By

    found = browser.find_elements(By.XPATH, f"//button[normalize-space()='{name}']")
    next(button for button in found if button.is_displayed()).click()  # Gradio keeps hidden twins of its tabs


def test_in_a_browser_a_text_gets_its_label_and_its_attention_and_nothing_leaves_the_machine(browser, runs, tmp_path):
    from selenium.webdriver.common.by import By

    expected = predictor(loaded(runs, "spam"))("red <b>cat</b>")

    def steps(wait):
        wait.until(lambda b: b.find_elements(By.XPATH, "//button[normalize-space()='Predict']"))
        fill(browser, "text", "red <b>cat</b>")
        press(browser, "Predict")
        wait.until(lambda b: expected["label"] in b.find_element(By.TAG_NAME, "body").text)
        assert f"{round(100 * expected['score'])}%" in browser.find_element(By.TAG_NAME, "body").text
        browser.save_screenshot(str(tmp_path / "label.png"))
        press(browser, "Attention")
        wait.until(lambda b: b.find_element(By.XPATH, "//button[normalize-space()='Show']").is_displayed())
        boxes = browser.find_elements(By.XPATH, "//label[.//span[normalize-space()='text']]//textarea")
        next(box for box in boxes if box.is_displayed()).send_keys("red cat")
        press(browser, "Show")
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png'], img[src*='/file=']"))
        browser.save_screenshot(str(tmp_path / "attention.png"))

    page = demo_module.demo(compose("demo", f"run={runs['spam']}", "device=cpu"))
    address = visit(browser, page, steps)
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    elsewhere = [url for url in urls if not url.startswith((address.rstrip("/"), "data:", "blob:", "chrome"))]
    assert urls
    assert not elsewhere


def test_in_a_browser_a_prompt_is_continued(browser, runs, tmp_path):
    from selenium.webdriver.common.by import By

    def steps(wait):
        wait.until(lambda b: b.find_elements(By.XPATH, "//button[normalize-space()='Write']"))
        fill(browser, "prompt", "red cat ")
        press(browser, "Write")

        def written(b):
            box = b.find_element(By.XPATH, "//label[.//span[normalize-space()='written']]//textarea")
            return len(box.get_attribute("value")) > len("red cat ") + 3

        wait.until(written)
        browser.save_screenshot(str(tmp_path / "written.png"))

    visit(browser, demo_module.demo(compose("demo", f"run={runs['gpt2']}", "device=cpu")), steps)
