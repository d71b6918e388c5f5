"""Networks of torchvision against formulas by hand, layer by layer: forward and backward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from layer_flops import of_layers
from torch import nn
from torchvision import models as torchvision_models

from subsettune.train import flops

BATCH = 8
NO_AUXILIARY: dict[str, Any] = {"aux_logits": False, "init_weights": False}
QUICK = ("resnet18", "mobilenet_v3_small", "vit_b_16", "squeezenet1_1")
SLOWER = (
    *("resnet50", "resnext50_32x4d", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x1_0", "densenet121", "vgg11"),
    *("googlenet", "inception_v3", "convnext_tiny", "swin_t", "swin_v2_t", "maxvit_t"),
    *("regnet_y_400mf", "regnet_x_400mf", "mnasnet1_0"),
)


def made(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network of torchvision for 10 classes, with the shape of an example."""
    options = NO_AUXILIARY if name in ("googlenet", "inception_v3") else {}
    side = 299 if name == "inception_v3" else 224
    with torch.random.fork_rng(devices=[]):
        return getattr(torchvision_models, name)(weights=None, num_classes=10, **options), (3, side, side)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)], ids=lambda name: name
)
def test_counts_are_those_of_the_layers_by_hand(name: str) -> None:
    network, shape = made(name)
    cost = flops.count(network, flops.Probe(input_shape=shape, batch_size=BATCH), 10, name)
    by_hand = of_layers(copy.deepcopy(network).to("meta"), torch.zeros(BATCH, *shape, device="meta"))
    assert (cost.forward, cost.backward) == (-(-by_hand.forward // BATCH), -(-by_hand.backward // BATCH))
    assert 1.85 < cost.backward / cost.forward < 2
    assert (cost.device, cost.varies, cost.notes) == ("meta", "", ())
    assert len(by_hand.names) > 8


def test_depthwise_convolutions_cost_twice_as_much_backward_as_forward() -> None:
    """EfficientNet-B0 had a backward pass 40.8 times its forward pass, which counts 0.39 G multiply-adds.

    Source: Tan and Le 2019, arXiv:1905.11946, table 2 (0.39 B FLOPs, there for multiply-adds and 1,000 classes).
    """
    network, shape = made("efficientnet_b0")
    cost = flops.count(network, flops.Probe(input_shape=shape), 10)
    head = 2 * 1280 * 990  # classes that are left out here
    assert (cost.forward + head) / 2 == pytest.approx(0.39e9, rel=0.02)
    assert cost.backward == 1_516_514_176
    assert cost.backward / cost.forward == pytest.approx(1.972, abs=0.001)
