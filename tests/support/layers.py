"""The rooms of the package, floor by floor: who may import whom. docs/architecture.md draws them."""

from __future__ import annotations

from arrows import Layer

# From the ground up: a room may import itself and those below, and of those beside it only what is together with it.
LAYERS = (
    Layer(
        rooms=(
            *(
                "",
                "errors",
                "extras",
                "config",
                "former_names",
                "patience",
                "storage",
                "digests",
                "facts",
                "registry",
                "plugins",
            ),
            *("user_code", "ledger", "in_memory", "keys", "loggers"),
        ),
        is_together=True,
    ),
    Layer(rooms=("policy", "goal", "task", "models", "text"), is_together=True),  # text: costs and policies in words
    Layer(rooms=("data",)),
    Layer(rooms=("select",)),
    Layer(rooms=("train",)),
    Layer(rooms=("study",)),
    Layer(rooms=("bundle", "report")),
    Layer(rooms=("trained",)),
    Layer(rooms=("api", "callbacks", "found"), is_together=True),
    Layer(rooms=("integrations", "cluster")),
    Layer(rooms=("catalog", "cli"), is_together=True),
)
