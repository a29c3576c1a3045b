"""What a real token yields is what it yields in its row alone, wherever padding stands; classes are of these."""

import pytest
import torch
from toy_models import (
    T,
    built,
    either_model,
    every_config,
    every_layout,
    every_model,
    padded,
    some_ids,
)


def a_batch(layout):
    """Rows of 11, 5, 1 and no tokens, and the batch of them with its mask."""
    ids = some_ids(3, T)
    rows = [ids[0], ids[1, :5], ids[2, :1], ids[2, :0]]
    return rows, *padded(rows, layout)


@every_model
@every_layout
def test_a_real_position_yields_what_the_row_alone_yields(config, head, layout):
    model = built(config, head)
    rows, batch, mask = a_batch(layout)
    outputs = model(batch, attention_mask=mask, output_hidden_states=True)
    for i, row in enumerate(rows[:3]):
        alone = model(row[None], output_hidden_states=True)
        real = mask[i].bool()
        if head == "texts":
            torch.testing.assert_close(outputs.logits[i], alone.logits[0])
        elif head == "base":
            torch.testing.assert_close(outputs.last_hidden_state[i, real], alone.last_hidden_state[0])
        else:
            torch.testing.assert_close(outputs.logits[i, real], alone.logits[0])
        for together, by_itself in zip(outputs.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(together[i, real], by_itself[0])
    assert all(x.isfinite().all() for x in (*outputs.hidden_states, outputs[0]))


@every_model
def test_a_mask_may_be_of_any_type(config, head):
    model = built(config, head)
    _, batch, mask = a_batch("holes")
    expected, unpadded = model(batch, attention_mask=mask)[0], model(batch)[0]
    for dtype in (torch.bool, torch.int32, torch.uint8, torch.float32, torch.bfloat16):
        assert torch.equal(model(batch, attention_mask=mask.to(dtype))[0], expected)
        assert torch.equal(model(batch, attention_mask=torch.ones_like(mask, dtype=dtype))[0], unpadded)


@every_model
@every_layout
def test_what_stands_at_padding_is_not_read_and_gets_no_gradient(config, head, layout):
    model = built(config, head)
    _, batch, mask = a_batch(layout)
    other = torch.where(mask.bool(), batch, batch % 30 + 1)
    embeddings = model.get_input_embeddings()(batch).detach().requires_grad_()
    outputs = model(inputs_embeds=embeddings, attention_mask=mask)[0]
    changed = model(other, attention_mask=mask)[0]
    if head != "texts":
        outputs, changed = outputs[mask.bool()], changed[mask.bool()]
    assert torch.equal(outputs, changed)
    outputs.square().sum().backward()
    touched = embeddings.grad.abs().sum(dim=-1) > 0
    assert not touched[~mask.bool()].any()
    if head != "texts":  # pooling by maximum or the last may leave out a token
        assert touched[mask.bool()].all()


@every_config
def test_the_last_hidden_state_is_zero_at_padding(config):
    _, batch, mask = a_batch("both")
    assert not built(config, "base")(batch, attention_mask=mask).last_hidden_state[mask == 0].any()


@every_config
@every_layout
@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
def test_classes_are_pooled_over_the_real_tokens(config, layout, pooling):
    model = built(config, "texts", classifier_pooling=pooling)
    _, batch, mask = a_batch(layout)
    logits = model(batch, attention_mask=mask).logits
    hidden = model.model(batch, attention_mask=mask).last_hidden_state
    for i in range(3):
        x = hidden[i, mask[i].bool()]
        if pooling == "attention":
            expected = (x * model.attention(x).softmax(dim=0)).sum(dim=0)
        else:
            expected = {"mean": x.mean(dim=0), "max": x.max(dim=0).values, "last": x[-1]}[pooling]
        torch.testing.assert_close(logits[i], model.score(expected))
    torch.testing.assert_close(logits[3], model.score.bias)  # nothing was read


@either_model
@pytest.mark.parametrize("shape", [(3, 1, T, T), (1, T), (2, T), (3, T - 1), (3, 1), (T,)], ids=str)
def test_a_mask_of_another_kind_is_refused(config, shape):
    mask = torch.ones(shape)
    mask[..., 0] = 0
    with pytest.raises(ValueError, match=r"attention_mask must be .* not of shape") as refused:
        built(config)(some_ids(3, T), attention_mask=mask)
    assert "(3, 11) or longer" in str(refused.value)
    assert str(refused.value).endswith(str(shape))
