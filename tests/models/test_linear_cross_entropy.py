"""The output layer's cross-entropy in chunks of rows is that of all rows at once, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F

from hf_llm.models import linear_cross_entropy as chunked
from hf_llm.models.linear_cross_entropy import linear_cross_entropy

N, C, V = 23, 6, 37


@pytest.fixture(autouse=True)
def _chunks_of_7(monkeypatch):
    monkeypatch.setattr(chunked, "ROWS_PER_CHUNK", 7)  # 3 whole ones and a shorter


@pytest.fixture
def layer():
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(size, generator=draw, dtype=torch.float64, requires_grad=True) for size in ((N, C), (V, C), (V,))
    )
    targets = torch.randint(V, (N,), generator=draw)
    targets[[2, 9, 10]] = -100
    return hidden, weight, bias, targets


def plain(hidden, weight, bias, targets):
    return F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("vocabulary", [32, V], ids=["aligned", "not aligned"])
def test_loss_and_gradients_are_those_of_torch(layer, biased, vocabulary):
    hidden, weight, bias, targets = layer
    targets = targets.clamp(max=vocabulary - 1)
    inputs = [hidden, weight[:vocabulary], bias[:vocabulary] if biased else None, targets]
    ours, theirs = linear_cross_entropy(*inputs), plain(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    leaves = [hidden, weight, bias] if biased else [hidden, weight]
    for mine, other in zip(
        torch.autograd.grad(ours / 3, leaves), torch.autograd.grad(theirs / 3, leaves), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-13)


def test_a_hopeless_target_has_its_finite_loss(layer):
    hidden, weight, bias, targets = layer
    inputs = [(1e4 * hidden).float(), weight.float(), bias.float(), targets]  # probabilities far below float32's least
    ours = linear_cross_entropy(*inputs)
    assert ours > 1e5
    torch.testing.assert_close(ours, plain(*inputs))


def test_nothing_is_computed_for_what_is_frozen(layer):
    hidden, weight, bias, targets = layer
    loss = linear_cross_entropy(hidden, weight.detach(), bias.detach(), targets)
    assert [None if saved is None else saved.shape for saved in loss.grad_fn.saved_tensors] == [(N, C), None, None]
    loss.backward()
    expected = torch.autograd.grad(plain(hidden, weight, bias, targets), hidden)[0]
    torch.testing.assert_close(hidden.grad, expected)


def test_a_batch_without_a_label_costs_nothing(layer):
    hidden, weight, bias, targets = layer
    loss = linear_cross_entropy(hidden, weight, bias, torch.full_like(targets, -100))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_a_second_backward_is_refused(layer):
    loss = linear_cross_entropy(*layer)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
