"""Tests run offline, on toys. Those that need real data look in HF_LLM_TEST_DATA, or beside the checkout, or skip."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

# A suite that is started in the background, or by nohup, inherits that Ctrl-C and SIGHUP are ignored, and so would
# every process that a test starts in order to send it one of them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="hf_llm-tests-")  # not the user's own
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder with openly licensed corpora, vocabularies and a tiny pretrained model, one sub-folder each."""
    folder = Path(os.environ.get("HF_LLM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set HF_LLM_TEST_DATA)")
    return folder


def overrides(**values: object) -> dict[str, str]:
    """`trainer__max_steps=4` -> {"trainer.max_steps": "4"}, for `toys`."""
    return {key.replace("__", "."): str(value) for key, value in values.items()}
