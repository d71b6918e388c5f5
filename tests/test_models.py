from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subsettune import models
from subsettune.errors import ConfigError, ModelError
from subsettune.models import copies
from subsettune.task import Model


@pytest.fixture(autouse=True)
def _forked_random_state() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make(
    name: str, shape: tuple[int, ...] = (1, 8, 8), outputs: int = 10, tokens: int = 0, **options: Any
) -> nn.Module:
    return models.make(Model(name=name, options=options), shape, outputs, tokens)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: make("mlp"), 64 * 64 + 64 + 64 * 10 + 10),
        (lambda: make("mlp", hidden=[]), 64 * 10 + 10),
        (lambda: make("mlp", (5,), 1, hidden=[7, 3]), 5 * 7 + 7 + 7 * 3 + 3 + 3 + 1),
        (lambda: make("cnn", channels=[4, 8], hidden=16), 4 * 9 + 4 + 4 * 8 * 9 + 8 + 32 * 16 + 16 + 16 * 10 + 10),
        (lambda: make("resnet18", (3, 32, 32), 100), 11_173_962 + 90 * 513),
        (
            lambda: make("transformer", (7,), 3, 11, width=8, depth=2, heads=2, feedforward=5),
            (11 + 7) * 8 + 2 * (2 * 16 + 9 * 24 + 9 * 8 + 9 * 5 + 6 * 8) + 16 + 9 * 3,
        ),
    ],
)
def test_number_of_parameters(network: Any, parameters: int) -> None:
    assert models.num_parameters(network()) == parameters


def test_dropout_is_an_option() -> None:
    for name in ("mlp", "cnn"):
        drops = [module.p for module in make(name, dropout=0.25).modules() if isinstance(module, nn.Dropout)]
        assert drops == [0.25]
    drops = [module.p for module in texts_network(dropout=0.25).modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.25] * 5  # after the embeddings, and in each of two blocks of weights and of what is added


def test_resnet18_is_torchvision_s_with_another_stem() -> None:
    from torchvision.models import resnet18

    ours, theirs = make("resnet18", (3, 32, 32), 1000), resnet18(weights=None)
    stem = "conv1.weight"
    shapes = [{name: tuple(v.shape) for name, v in net.state_dict().items() if name != stem} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.get_parameter(stem).shape == (64, 3, 3, 3)
    features = nn.Sequential(ours.conv1, ours.bn1, ours.relu, ours.maxpool)(torch.zeros(2, 3, 32, 32))  # type: ignore[arg-type]
    assert features.shape == (2, 64, 32, 32)


def test_initialisation_follows_torch_s_random_state() -> None:
    first = make("mlp").state_dict()
    torch.manual_seed(0)
    second = make("mlp").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- the transformer --------------------------------------------------------------------------------------------------

T, VOCABULARY = 7, 11


def texts_network(**options: Any) -> nn.Module:
    small = {"width": 8, "depth": 2, "heads": 2, "feedforward": 5, "dropout": 0.0}
    return make("transformer", (T,), 3, VOCABULARY, **{**small, **options})


def token_ids(b: int = 4, length: int = T) -> Tensor:
    """Texts of several lengths, from 1 to all places."""
    inputs = torch.randint(1, VOCABULARY, (b, length))
    return inputs * (torch.arange(length) <= torch.arange(b)[:, None] * 2)


def enlarged(network: nn.Module) -> nn.Module:
    """With weights so large that every layer counts, in float64."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.double()


def torch_s_own(network: Any, inputs: Tensor) -> Tensor:
    """The same from torch's encoder layers, text by text and without padding."""
    outputs = []
    for text in inputs:
        ids = text[text != 0]
        hidden = network.tokens(ids) + network.positions[: len(ids)]
        for block in network.blocks:
            theirs = nn.TransformerEncoderLayer(8, 2, 5, 0.0, "gelu", batch_first=True, norm_first=True).double()
            theirs.load_state_dict(
                {
                    "self_attn.in_proj_weight": block.attention.projections.weight,
                    "self_attn.in_proj_bias": block.attention.projections.bias,
                    "self_attn.out_proj.weight": block.attention.merge.weight,
                    "self_attn.out_proj.bias": block.attention.merge.bias,
                    **{f"norm1.{name}": value for name, value in block.attention_norm.named_parameters()},
                    **{f"norm2.{name}": value for name, value in block.feedforward_norm.named_parameters()},
                    **{f"linear1.{name}": value for name, value in block.feedforward[0].named_parameters()},
                    **{f"linear2.{name}": value for name, value in block.feedforward[2].named_parameters()},
                }
            )
            hidden = theirs(hidden[None])[0]
        outputs.append(network.head.output(network.head.norm(hidden).mean(dim=0)))
    return torch.stack(outputs)


def test_the_transformer_is_that_of_torch_s_layers() -> None:
    """Without padding there, with padding here."""
    network, inputs = enlarged(texts_network()), token_ids()
    assert [int((text != 0).sum()) for text in inputs] == [1, 3, 5, 7]
    torch.testing.assert_close(network(inputs), torch_s_own(network, inputs), rtol=1e-10, atol=1e-10)


def test_padding_changes_nothing() -> None:
    network, inputs = enlarged(texts_network()), token_ids(3)
    plain = network(inputs)
    with torch.no_grad():
        network.tokens.weight[0] += 3.0  # type: ignore[operator]
    torch.testing.assert_close(network(inputs), plain, rtol=0, atol=1e-12)
    network(inputs).square().sum().backward()
    assert not network.tokens.weight.grad[0].any()  # type: ignore[union-attr]
    assert network.tokens.weight.grad[inputs[0, 0]].all()  # type: ignore[union-attr, index]


def test_texts_of_padding_alone_have_finite_outputs_and_gradients() -> None:
    network = texts_network()
    outputs = network(torch.zeros(2, T, dtype=torch.int64))
    assert torch.equal(outputs, network.head.output.bias.expand(2, 3))  # type: ignore[operator, union-attr]
    outputs.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_the_read_out_of_the_last_block_is_the_network_s_output() -> None:
    network, inputs = texts_network().eval(), token_ids()
    seen: list[Tensor] = []
    for block in network.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    outputs = network(inputs)
    assert torch.equal(network.read_out(seen[1], inputs), outputs)  # type: ignore[operator]
    early = network.read_out(seen[0], inputs)  # type: ignore[operator]
    assert early.shape == (4, 3)
    assert not torch.equal(early, outputs)
    del network.blocks[1]  # type: ignore[union-attr]
    assert torch.equal(network(inputs), early)


def test_vmap_follows_the_transformer() -> None:
    """Over networks, with dropout and gradients, as a soup trains; each as it would be alone."""
    networks = [texts_network().double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(networks)
    inputs = torch.stack([token_ids() for _ in networks])

    def loss(own: dict[str, Tensor], some: Tensor) -> Tensor:
        outputs = torch.func.functional_call(networks[0], (own, buffers), (some,))
        return outputs.logsumexp(dim=1).sum()

    together = torch.func.vmap(torch.func.grad(loss))(parameters, inputs)
    for i, network in enumerate(networks):
        network(inputs[i]).logsumexp(dim=1).sum().backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(together[name][i], parameter.grad)
    drops = texts_network(dropout=0.5)
    alike = torch.func.vmap(drops, randomness="different")(inputs[:1].expand(2, -1, -1))
    assert not torch.equal(alike[0], alike[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "width must be a multiple of heads, which are 2, got 9. Change one of them."),
        ({"depth": 0}, "depth must be a positive whole number, got 0. Write e.g. 4."),
        ({"heads": 2.0}, "heads must be a positive whole number, got 2.0. Write e.g. 4."),
    ],
)
def test_transformers_that_cannot_be_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        texts_network(**options)


def test_texts_and_numbers_need_their_networks() -> None:
    message = (
        "model 'transformer' needs texts (a row of token ids for each example), got numbers of shape (1, 8, 8). Set "
        "data.text, or data.layout to tokens, or use another model."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        make("transformer")
    message = "model 'mlp' needs numbers, got texts or other token ids. Use transformer, or a network of your own."
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        make("mlp", (T,), 3, VOCABULARY)


# --- a user's own -----------------------------------------------------------------------------------------------------


def bare() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def sized(num_outputs: int, *, width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_outputs))


def looking_up(num_outputs: int, num_tokens: int) -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(num_tokens, num_outputs), nn.Linear(num_outputs, num_outputs))


def taking_any(num_outputs: int, **others: Any) -> nn.Module:
    assert set(others) <= {"input_shape", "num_tokens"}
    return nn.Linear(64, num_outputs + len(others))


def frozen() -> nn.Module:
    return bare().requires_grad_(False)


def lazy() -> nn.Module:
    return nn.LazyLinear(10)


def failing() -> nn.Module:
    raise KeyError("weights.bin")


def nothing() -> None:
    pass


number = 3


def test_a_user_s_function_gets_what_it_takes() -> None:
    assert models.num_parameters(make("tests.test_models:bare")) == 650
    assert models.num_parameters(make("tests.test_models:sized", outputs=4, width=5)) == 65 * 5 + 6 * 4
    assert models.num_parameters(make("tests.test_models:sized", outputs=4, num_outputs=2)) == 65 * 3 + 4 * 2
    assert models.num_parameters(make("tests.test_models:looking_up", (T,), 4, VOCABULARY)) == 4 * VOCABULARY + 4 * 5
    assert make("tests.test_models:taking_any", outputs=4).out_features == 5  # no vocabulary where there are no texts
    assert make("tests.test_models:taking_any", (T,), 4, VOCABULARY).out_features == 6


def test_what_a_network_gets_follows_its_data() -> None:
    assert (models.input_dtype(0), models.input_dtype(VOCABULARY)) == (torch.float32, torch.int64)
    ids = models.fresh_input((T,), 2, dtype=torch.int64)
    assert (ids.dtype, ids.tolist()) == (torch.int64, [[0] * T] * 2)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "mlp",
            {"hiden": [3]},
            ConfigError,
            "model 'mlp' does not fit its options: got an unexpected keyword argument",
        ),
        (
            "mlp",
            {"hidden": 64},
            ConfigError,
            "hidden must be a list of positive whole numbers, got 64. Write e.g. [64].",
        ),
        ("mlp", {"hidden": [0]}, ConfigError, "hidden must be a list of positive whole numbers, got (0,)."),
        (
            "mlp",
            {"dropout": 2},
            ConfigError,
            "model 'mlp' cannot be built with {'dropout': 2}: dropout probability has",
        ),
        (
            "cnn",
            {"channels": [8] * 4},
            ModelError,
            "cnn halves the image 4 times, which 8x8 pixels do not allow. Use f",
        ),
        ("cnn", {"hidden": 0}, ConfigError, "hidden must be a positive whole number, got 0. Write e.g. 64."),
        ("tests.test_models:sized", {"depth": 1}, ConfigError, "It takes: width."),
        (
            "tests.test_models:frozen",
            {},
            ModelError,
            "model 'tests.test_models:frozen' has no trainable parameters. Give it some.",
        ),
        (
            "tests.test_models:lazy",
            {},
            ModelError,
            "model 'tests.test_models:lazy' has lazy layers, whose size is not known. Give",
        ),
        (
            "tests.test_models:failing",
            {},
            ConfigError,
            "model 'tests.test_models:failing' cannot be built with {}: 'weights.bin'.",
        ),
        (
            "tests.test_models:nothing",
            {},
            ModelError,
            "model 'tests.test_models:nothing' must return a torch.nn.Module, got NoneType",
        ),
        (
            "tests.test_models:number",
            {},
            ConfigError,
            "model 'tests.test_models:number' must be a function or a class, got int.",
        ),
        (
            "tests.test_models:absent",
            {},
            ConfigError,
            "model 'tests.test_models:absent' cannot be found: module 'tests.test_models' has no",
        ),
        ("no_such_module:net", {}, ConfigError, "model 'no_such_module:net' cannot be imported: No module named"),
    ],
)
def test_models_that_cannot_be_made(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make(name, **options)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_images_are_needed(name: str) -> None:
    with pytest.raises(
        ModelError,
        match=rf"^model '{name}' needs images .*, got inputs of shape \(64,\). Use mlp, or a network of your own\.$",
    ):
        make(name, (64,))


def test_names() -> None:
    with pytest.raises(
        ConfigError, match=r"name must be a known model or package.module:name, got 'vgg'. Known: cnn, mlp"
    ):
        Model(name="vgg")


@pytest.mark.parametrize(("shape", "num_outputs"), [((2, 3), 3), ((2,), 1), ((2, 1), 1)])
def test_outputs_that_fit(shape: tuple[int, ...], num_outputs: int) -> None:
    models.check_output(torch.zeros(shape), 2, num_outputs, "m")


@pytest.mark.parametrize("output", [torch.zeros(2), torch.zeros(3, 2), torch.zeros(2, 3, 1), [1.0]])
def test_outputs_that_do_not_fit(output: Tensor) -> None:
    with pytest.raises(ModelError, match="model 'm' must "):
        models.check_output(output, 2, 3, "m")


def test_parameters_are_counted_once() -> None:
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight  # type: ignore[assignment]
    assert models.num_parameters(tied) == 9 + 3 + 3
    assert models.num_parameters(nn.BatchNorm1d(5)) == 10  # running statistics are buffers


@pytest.mark.parametrize("form", ["object", "named", "alone"])
def test_networks_may_return_an_object_with_logits_or_a_dict(form: str) -> None:
    network = make("own_goals:Rich", (4,), 3, form=form)
    x = torch.randn(5, 4)
    assert torch.equal(network(x), network.layer(x))
    assert torch.equal(copies.copy_of(network)(x), network(x))
    assert list(network.state_dict()) == ["layer.weight", "layer.bias"]


def test_a_dict_of_several_that_are_not_named_is_refused() -> None:
    network = make("own_goals:Rich", (4,), 3, form="unclear")
    expected = (
        "model 'own' must return a tensor, got dict. Name one of a, b logits, or wrap it in a module whose forward "
        "returns that entry."
    )
    with pytest.raises(ModelError, match=re.escape(expected)):
        models.check_output(network(torch.randn(2, 4)), 2, 3, "own")
