"""How much GPU memory a recipe needs, by a formula (`FORMULA`) that has to load nothing.

An estimate: what the allocator loses between blocks is not in it, nor what a kernel needs for itself. Activations of a
pass are, with gradient checkpointing, the input of every layer and one layer in full with its gradients; without it
every layer in full (`layer_bytes`). FSDP and ZeRO-3 hold one layer whole at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from promptcblue_metric.cli.common import make_table, show

from .methods import METHODS, Shape
from .recipe import FOUR_BIT, RECIPES, Recipe, defaults, find_recipe, read_recipe, shipped

if TYPE_CHECKING:
    from rich.table import Table

#: What a recipe says, over the defaults.
Settings = Mapping[str, Any]
#: GPUs in the last column of the table of recipes.
GPUS = 8
#: What CUDA and its libraries take on a GPU before any model is there.
CONTEXT_BYTES = 1 << 30
#: NF4 with scales of 8 bits for blocks of 64 weights, and scales of 32 bits for blocks of 256 of those.
_FOUR_BIT_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
FORMULA = (
    "GPU memory by formula: weights (2 bytes a parameter in bfloat16, 4 + 2 where they are trained, 0.52 in 4 bits) + "
    "trained parameters (16 bytes in an adapter, 12 more in full fine-tuning: weight, gradient, AdamW) + activations "
    "of a pass of batch_tokens + 1 GiB for CUDA. FSDP and ZeRO-3 divide the first two over the GPUs."
)


@dataclass(frozen=True)
class Backbone:
    """The sizes of a decoder whose blocks have four attention matrices and a gated feed-forward of three."""

    layers: int  #: Number of blocks.
    hidden: int  #: Width of the residual stream.
    key_value: int  #: Width of all key heads together, which is that of the value heads.
    inner: int  #: Width of the feed-forward.
    vocabulary: int  #: Rows of the embedding.
    tied: bool = False  #: Whether the output embedding is the input's.
    biases: bool = True  #: Whether queries, keys and values have biases.

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Widths in and out of the matrices of a block: query, key, value, output, gate, up, down."""
        hidden, key_value, inner = self.hidden, self.key_value, self.inner
        attention = [(hidden, hidden), (hidden, key_value), (hidden, key_value), (hidden, hidden)]
        return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]

    @property
    def shape(self) -> Shape:
        """The sizes that say how large an adapter of it is."""
        matrices = self.layers * self.matrices
        return Shape(matrices, 2 * self.layers, self.hidden, self.hidden, self.layers, self.key_value)

    @property
    def in_matrices(self) -> int:
        """Parameters in the matrices of all blocks."""
        return self.layers * sum(wide * high for wide, high in self.matrices)

    @property
    def parameters(self) -> int:
        """All parameters."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        biases = (self.hidden + 2 * self.key_value) * self.biases
        return embeddings + self.in_matrices + self.layers * (2 * self.hidden + biases) + self.hidden


#: The backbones of the shipped recipes, from their published configs.
BACKBONES: Mapping[str, Backbone] = {
    "Qwen/Qwen2.5-0.5B-Instruct": Backbone(24, 896, 128, 4864, 151936, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": Backbone(28, 1536, 256, 8960, 151936, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": Backbone(28, 3584, 512, 18944, 152064),
    "Qwen/Qwen2.5-14B-Instruct": Backbone(48, 5120, 1024, 13824, 152064),
}


@dataclass(frozen=True)
class Estimate:
    """What one GPU holds, in bytes, of a run on one GPU."""

    weights: int  #: Of the backbone.
    trained: int  #: What training adds for each trained parameter.
    activations: int  #: Of one pass.
    layer: int  #: Weights of one block.

    def on(self, gpus: int = 1) -> int:
        """Bytes on each of so many GPUs, with FSDP or ZeRO-3 where there are several."""
        divided = self.weights + self.trained
        whole = divided if gpus == 1 else divided // gpus + self.layer
        return whole + self.activations + CONTEXT_BYTES


def trained_parameters(settings: Settings, backbone: Backbone) -> int:
    """How many parameters a recipe trains; with ``fit_budget`` as many as it allows, which is a little too many."""
    if settings.get("fit_budget"):
        return int(settings["fit_budget"] * backbone.parameters)
    names = {each.name for each in fields(Recipe)}
    recipe = Recipe(**{"model": "", **{key: value for key, value in settings.items() if key in names}})
    count = METHODS[recipe.method].parameters
    return count(recipe, backbone.shape) if count else backbone.parameters


def layer_bytes(backbone: Backbone) -> int:
    """Bytes of activations that one block keeps for each token, in bfloat16 with a fused attention kernel.

    Its input (2 bytes each); two norms, which keep their input in float32 and their output (6); queries, keys and
    values with their rotated copies (4, but values 2); attention's output and the residual sum (2); gate, up,
    activation and product (2).
    """
    hidden, key_value, inner = backbone.hidden, backbone.key_value, backbone.inner
    return 2 * hidden + 2 * 6 * hidden + 4 * hidden + 6 * key_value + 2 * 2 * hidden + 4 * 2 * inner


def estimate(settings: Settings, backbone: Backbone) -> Estimate:
    """The memory of a recipe."""
    full, trained = settings["method"] == "full", trained_parameters(settings, backbone)
    a_weight = 4 + 2 if full else 2
    in_matrix = _FOUR_BIT_BYTES if settings.get("dtype") == FOUR_BIT else a_weight
    matrices = backbone.in_matrices
    layer = layer_bytes(backbone)
    tokens = settings.get("batch_tokens") or settings.get("per_device_train_batch_size", 8) * settings["max_length"]
    checkpointed = backbone.layers * 2 * backbone.hidden + 2 * layer
    a_token = checkpointed if settings["gradient_checkpointing"] else backbone.layers * layer
    return Estimate(
        weights=int(in_matrix * matrices + a_weight * (backbone.parameters - matrices)),
        trained=(4 + 8) * trained if full else (4 + 4 + 8) * trained,
        activations=tokens * a_token,
        layer=int(in_matrix * matrices / backbone.layers),
    )


def print_recipes(names: Sequence[str] = ()) -> None:
    """Print the table, by what formula its memory is, and what each method can be trained on.

    Raises:
        PromptCBLUEError: a recipe is not to be found or cannot be read.
    """
    configs = sorted(path.name for path in (RECIPES / "accelerate").glob("*.yaml"))
    accelerate = f"for accelerate launch --config_file, in {RECIPES / 'accelerate'}: {', '.join(configs)}"
    show(recipe_table(names), (FORMULA, accelerate))
    head, *rows = support()
    table = make_table(*head, texts=len(head))
    for row in rows:
        table.add_row(*row)
    show(table)


def support() -> list[tuple[str, ...]]:
    """What each method can be trained on, as the head and the rows of a table."""
    sharded = {True: "yes", False: "refused"}
    rows = [(name, "yes", "yes", *[sharded[method.shards]] * 2) for name, method in METHODS.items()]
    return [("method", "one device", "DDP", "FSDP2", "ZeRO-3"), *rows]


def recipe_table(names: Sequence[str] = ()) -> Table:
    """Recipes with what each trains and needs; every shipped one by default.

    Raises:
        PromptCBLUEError: a recipe is not to be found or cannot be read.
    """
    numbers = ("parameters", "trained", "share", "GB on 1 GPU", f"GB on each of {GPUS}")
    table = make_table("recipe", "method", "backbone", *numbers, texts=3)
    common = defaults()
    for path in [find_recipe(name) for name in names] or shipped().values():
        settings = {"method": "lora", **common, **read_recipe(path)}
        model = str(settings.get("model") or "built from the recipe")
        method = settings["method"] + ", 4 bits" * (settings.get("dtype") == FOUR_BIT)
        backbone = BACKBONES.get(model)
        figures = [""] * 5
        if backbone is not None:
            trained, needs = trained_parameters(settings, backbone), estimate(settings, backbone)
            figures = [
                f"{backbone.parameters / 1e9:.2f} B",
                f"{trained / 1e6:.1f} M",
                f"{trained / backbone.parameters:.2%}",
                f"{needs.on() / 1e9:.0f}",
                f"{needs.on(GPUS) / 1e9:.0f}",
            ]
        table.add_row(path.stem, method, model, *figures)
    return table
