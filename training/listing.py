"""The table of the shipped recipes."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from promptcblue_metric.cli.common import make_console

from .memory import BACKBONES, FORMULA, estimate, trained_parameters
from .recipe_files import RECIPES, defaults, find_recipe, read_recipe, shipped

#: GPUs in the table's last column.
GPUS = 8


def print_recipes(names: Sequence[str] = ()) -> None:
    """Print the table, and by what formula its memory is.

    Raises:
        PromptCBLUEError: a recipe is not to be found or cannot be read.
    """
    console = make_console()
    console.print(recipe_table(names))
    console.print(FORMULA, markup=False, highlight=False)
    configs = sorted(path.name for path in (RECIPES / "accelerate").glob("*.yaml"))
    console.print(
        f"for accelerate launch --config_file, in {RECIPES / 'accelerate'}: {', '.join(configs)}", markup=False
    )


def recipe_table(names: Sequence[str] = ()) -> Table:
    """Recipes with what each trains and needs; every shipped one by default.

    Raises:
        PromptCBLUEError: a recipe is not to be found or cannot be read.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("recipe", "method", "backbone"):
        table.add_column(title, no_wrap=True)
    for title in ("parameters", "trained", "share", "GB on 1 GPU", f"GB on each of {GPUS}"):
        table.add_column(title, justify="right", no_wrap=True)
    common = defaults()
    for path in [find_recipe(name) for name in names] or shipped().values():
        settings = {**common, **read_recipe(path)}
        settings.setdefault("method", "lora")
        model = str(settings.get("model") or "built from the recipe")
        method = f"{settings['method']}, 4 bits" if settings.get("dtype") == "4bit" else settings["method"]
        backbone = BACKBONES.get(model)
        numbers = [""] * 5
        if backbone is not None:
            trained, needs = trained_parameters(settings, backbone), estimate(settings, backbone)
            numbers = [
                f"{backbone.parameters / 1e9:.2f} B",
                f"{trained / 1e6:.1f} M",
                f"{trained / backbone.parameters:.2%}",
                f"{needs.on() / 1e9:.0f}",
                f"{needs.on(GPUS) / 1e9:.0f}",
            ]
        table.add_row(path.stem, method, model, *numbers)
    return table
