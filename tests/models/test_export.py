"""transformers' exporters make graphs of these models, which give the same numbers for other rows and padding."""

import pytest
import torch
from toy_models import PAD, T, built, either_model, every_config, every_language_model, padded, some_ids

pytest.importorskip("transformers.exporters", reason="this version of transformers has no exporters")
from transformers.exporters.base import ExportedModel
from transformers.exporters.configs import DynamoConfig
from transformers.exporters.exporter_dynamo import DynamoExporter
from transformers.exporters.utils import get_leaf_tensors

WIDTH = T + 3
DYNAMIC = DynamoConfig(dynamic=True)


def rows_of(*lengths):
    return [some_ids(length, seed=length) for length in lengths]


def exported(model):
    ids, mask = padded(rows_of(5, 1, 9), "right", width=WIDTH)
    return DynamoExporter().export(model, {"input_ids": ids, "attention_mask": mask}, config=DYNAMIC)


def assert_same(found, expected):
    found, expected = get_leaf_tensors(found), get_leaf_tensors(expected)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("head", ["base", "texts"])
@every_config
def test_an_exported_model_reads_more_rows_padded_in_any_way(config, head):
    model = built(config, head)
    graph = exported(model)
    for layout in ("left", "right", "both", "holes"):
        ids, mask = padded(rows_of(2, T, 0, 7, 1), layout, width=WIDTH)
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask)
        assert_same(graph(input_ids=ids, attention_mask=mask), expected)


@every_language_model
def test_exported_steps_of_generation_go_on_from_each_others_state(config):
    model = built(config, pad_token_id=PAD)
    ids, mask = padded(rows_of(5, 1, 9), "left", width=WIDTH)
    graph = DynamoExporter().export_for_generation(model, {"input_ids": ids, "attention_mask": mask}, config=DYNAMIC)
    ids, mask = padded(rows_of(2, T, 7, 1), "left", width=WIDTH)
    with torch.no_grad():
        expected = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=None)
    step = graph.runners["prefill"](input_ids=ids, attention_mask=mask)
    found = [step.logits[:, -1:].argmax(-1)]
    while len(found) < 4:
        mask = torch.cat((mask, torch.ones_like(found[-1])), dim=1)
        step = graph.runners["decode"](input_ids=found[-1], attention_mask=mask, past_key_values=step.past_key_values)
        found.append(step.logits[:, -1:].argmax(-1))
    assert torch.equal(torch.cat(found, dim=1), expected[:, ids.shape[1] :])


@either_model
def test_an_exported_model_is_saved_and_read_again(config, tmp_path):
    model = built(config)
    exported(model).save_pretrained(tmp_path)
    ids, mask = padded(rows_of(2, T, 7), "both", width=WIDTH)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask)
    assert_same(ExportedModel.from_pretrained(tmp_path)(input_ids=ids, attention_mask=mask), expected)


@either_model
def test_onnx_runtime_gives_the_same(config):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = built(config)
    ids, mask = padded(rows_of(5, 1, 9), "right", width=WIDTH)
    graph = OnnxExporter().export(model, {"input_ids": ids, "attention_mask": mask}, config=OnnxConfig(dynamic=True))
    ids, mask = padded(rows_of(2, T, 7, 1), "holes", width=WIDTH)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask)
    assert_same(graph(input_ids=ids, attention_mask=mask), expected)
