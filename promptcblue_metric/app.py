"""Starts the page of the metric's Space (`hub.page`): ``python app.py``, as the Hub does."""

import sys
from importlib import import_module, util
from pathlib import Path


def main() -> None:
    """Serve the page from this folder, which on the Hub is a package without its name."""
    folder = Path(__file__).resolve().parent
    spec = util.spec_from_file_location(
        "promptcblue_metric", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec
    assert spec.loader
    # The folder itself must not be searched: its modules would hide others of their names.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != folder]
    package = sys.modules["promptcblue_metric"] = util.module_from_spec(spec)
    spec.loader.exec_module(package)
    import_module("promptcblue_metric.hub.page").serve()


if __name__ == "__main__":
    main()
