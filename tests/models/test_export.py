"""transformers' exporters make graphs of these models, which give the same numbers for other rows and padding."""

import pytest
import torch
from toy_models import PAD, T, built, either_model, every_config, every_language_model, padded, some_ids

pytest.importorskip("transformers.exporters.runners", reason="before transformers 5.23 no graph can be called")
from transformers import DynamicCache
from transformers.exporters.base import ExportedModel
from transformers.exporters.configs import DynamoConfig
from transformers.exporters.exporter_dynamo import DynamoExporter
from transformers.exporters.utils import get_leaf_tensors

from hf_llm.models.state import CACHE_NAME

WIDTH = T + 3
DYNAMIC = DynamoConfig(dynamic=True)


def batch(*lengths, layout):
    """Rows of so many tokens each, as a model takes them."""
    ids, mask = padded([some_ids(length, seed=length) for length in lengths], layout, width=WIDTH)
    return {"input_ids": ids, "attention_mask": mask}


def exported(model, exporter, config):
    return exporter.export(model, batch(5, 1, 9, layout="right"), config=config)


def assert_gives_the_same(graph, model, inputs):
    with torch.no_grad():
        expected = get_leaf_tensors(model(**inputs))
    found = get_leaf_tensors(graph(**inputs))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("head", ["base", "texts"])
@every_config
def test_an_exported_model_reads_more_rows_padded_in_any_way(config, head):
    model = built(config, head)
    graph = exported(model, DynamoExporter(), DYNAMIC)
    for layout in ("left", "right", "both", "holes"):
        assert_gives_the_same(graph, model, batch(2, T, 0, 7, 1, layout=layout))


@every_language_model
def test_exported_steps_of_generation_go_on_from_each_others_state(config):
    model = built(config, pad_token_id=PAD)
    graph = DynamoExporter().export_for_generation(model, batch(5, 1, 9, layout="left"), config=DYNAMIC)
    inputs = batch(2, T, 7, 1, layout="left")
    with torch.no_grad():
        expected = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    empty = DynamicCache(config=model.config)  # of which generation begins
    step, mask = graph.runners["prefill"](**inputs, **{CACHE_NAME: empty}), inputs["attention_mask"]
    found = [step.logits[:, -1:].argmax(-1)]
    while len(found) < 4:
        mask = torch.cat((mask, torch.ones_like(found[-1])), dim=1)
        step = graph.runners["decode"](input_ids=found[-1], attention_mask=mask, **{CACHE_NAME: step[CACHE_NAME]})
        found.append(step.logits[:, -1:].argmax(-1))
    assert torch.equal(torch.cat(found, dim=1), expected[:, WIDTH:])


@either_model
def test_an_exported_model_is_saved_and_read_again(config, tmp_path):
    model = built(config)
    exported(model, DynamoExporter(), DYNAMIC).save_pretrained(tmp_path)
    again = ExportedModel.from_pretrained(tmp_path, trust_remote_code=True)  # from 5.24 on the graphs need it
    assert_gives_the_same(again, model, batch(2, T, 7, layout="both"))


@either_model
def test_onnx_runtime_gives_the_same(config):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = built(config)
    graph = exported(model, OnnxExporter(), OnnxConfig(dynamic=True))
    assert_gives_the_same(graph, model, batch(2, T, 7, 1, layout="holes"))
