"""A model on this machine: finding and loading it with its adapter, and in which number format on which device."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.data.writing import replacing
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, get_task

from .recipe import DTYPES, FOUR_BIT, Recipe
from .run import ADAPTER_CONFIG, BACKBONE, CARD, RECORD, WEIGHTS, folder_fingerprint, take_weights
from .tiny import build_backbone

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig


#: Parameters below which one CPU thread is as fast as several, and far faster where other programs want the cores.
_TINY = 4_000_000


class ModelSource(NamedTuple):
    """A model as the user named it: a backbone, and an adapter on it or None. Both are folders or Hub ids."""

    backbone: str
    adapter: str | None = None

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: with the adapter if it was saved there, else with the backbone."""
        return self.adapter if self.adapter and _file_of(self.adapter, "tokenizer_config.json") else self.backbone


def find_model(model: str, adapter: str | None = None) -> ModelSource:
    """What to load for ``--model`` and ``--adapter``; a model that is an adapter brings its own backbone.

    Raises:
        PromptCBLUEError: a folder is missing or holds no model, or the adapter's backbone is not to be found.
    """
    for name in filter(None, (model, adapter)):
        check_exists(name)
    if adapter is None and (config := _file_of(model, ADAPTER_CONFIG)):
        return ModelSource(_backbone_of(model, config), model)
    return ModelSource(model, adapter)


def _file_of(model: str, name: str) -> Path | None:
    """A file of a model, fetched if the model is on the Hub; None if it has no such file, or cannot be reached."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(model, name))
    except (HfHubHTTPError, OSError, ValueError):
        return None


def check_exists(name: str) -> None:
    """Refuse what looks like a folder and is none; a name on the Hub is left to the Hub's client.

    Raises:
        PromptCBLUEError: no such folder, or no model in it.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", ADAPTER_CONFIG)):
            raise PromptCBLUEError(f"model {name}: the folder has no config.json and no {ADAPTER_CONFIG}")
    elif path.exists() or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise PromptCBLUEError(f"model {name}: no such folder, and a model on the Hub is named 'owner/name'")


def _backbone_of(adapter: str, config: Path) -> str:
    try:
        backbone = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise PromptCBLUEError(
            f"{config}: expected a field base_model_name_or_path, which cannot be read from it"
        ) from error
    # A run's own backbone moves with its folder.
    own = config.parent / BACKBONE
    if own.is_dir():
        return str(own)
    try:
        check_exists(str(backbone))
    except PromptCBLUEError as error:
        raise PromptCBLUEError(
            f"adapter {adapter}: its {error}; name the backbone with --model and the adapter with --adapter"
        ) from error
    return str(backbone)


def identify(name: str) -> str:
    """A model's name with what tells one state of it from another: a digest of its folder, or its commit on the Hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return f"{folder.resolve().name}@{folder_fingerprint(folder)}"
    # Fetched and not only looked for: a model's name must be the same before it is loaded and after.
    config = _file_of(name, "config.json") or _file_of(name, ADAPTER_CONFIG)
    return f"{name}@{config.parent.name}" if config else name


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a token to pad with if it has one to end with.

    Raises:
        PromptCBLUEError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, name, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token is None:
        # Safe, since padding is masked and the labels of an answer's own end are set one by one.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, dtype: torch.dtype, *, trust_remote_code: bool = False, **options: object) -> PreTrainedModel:
    """A causal language model in ``dtype``, on the CPU unless the options say where, ready to be trained.

    Args:
        options: of ``from_pretrained``, such as a quantisation.

    Raises:
        PromptCBLUEError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = _load(
        AutoModelForCausalLM, name, dtype=dtype, trust_remote_code=trust_remote_code, **options
    )
    return model


def four_bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Weights of four bits (NF4, their scales quantised too), computed with in ``dtype`` (Dettmers et al. 2023)."""
    import bitsandbytes  # noqa: F401 - its absence is reported by name, where transformers would only say that it fails
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def load_backbone(
    recipe: Recipe, training: SFTConfig, samples: Iterable[Sample], *, whole: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone of a recipe and its tokenizer, built from the samples' characters where it is to be made anew.

    The tokenizer keeps its chat template only where the prompts are written with it.

    Args:
        whole: whether to put it on this process's device, so that it is tried where it will be trained.

    Raises:
        PromptCBLUEError: it cannot be built or loaded, or has no chat template where the recipe asks for it.
    """
    name, trust = recipe.model or str(Path(str(training.output_dir)) / BACKBONE), training.trust_remote_code
    if isinstance(recipe.from_config, dict):
        with training.main_process_first(desc="building the backbone"):
            if not Path(name, "config.json").is_file():
                texts = (text for sample in samples for text in (sample["input"], sample["target"]))
                build_backbone(recipe.from_config, texts, name, training.seed)
    tokenizer = load_tokenizer(ModelSource(name, recipe.adapter).tokenizer, trust_remote_code=trust)
    if recipe.prompt_format == "plain":
        tokenizer.chat_template = None
    if recipe.prompt_format == "chat" and tokenizer.chat_template is None:
        raise PromptCBLUEError(f"prompt_format chat: the tokenizer of {name} has no chat template; take plain")
    # Weights that are trained themselves stay in float32: steps of 1e-5 vanish in bfloat16's 8 bits.
    wanted = "float32" if recipe.dtype == "auto" and recipe.method == "full" else recipe.dtype
    dtype = choose_dtype("auto" if wanted == FOUR_BIT else wanted, training.device)
    options: dict[str, object] = {}
    if wanted == FOUR_BIT:
        options = {"quantization_config": four_bit(dtype), "device_map": {"": training.device}}
    kernel = attention_kernel(recipe.attn_implementation, dtype, training.device)
    model = load_model(name, dtype, trust_remote_code=trust, attn_implementation=kernel, **options)
    spare_threads(model, training.device)
    return model.to(training.device) if whole else model, tokenizer


def load_for_prediction(
    source: ModelSource, dtype: torch.dtype, *, trust_remote_code: bool = False, **options: object
) -> PreTrainedModel | PeftModel:
    """A model with its adapter, in evaluation mode, where `load_model` puts it.

    Raises:
        PromptCBLUEError: the backbone or the adapter cannot be loaded.
    """
    model: PreTrainedModel | PeftModel = load_model(
        source.backbone, dtype, trust_remote_code=trust_remote_code, **options
    )
    if source.adapter:
        from peft import PeftModel

        from .adapters import pad_before_prompt  # which also makes the parallel adapter known to PEFT

        try:
            model = pad_before_prompt(PeftModel.from_pretrained(model, source.adapter))
        except (OSError, ValueError, RuntimeError) as error:
            raise PromptCBLUEError(
                f"adapter {source.adapter} does not load on {source.backbone}: {first_line(error)}"
            ) from error
    return model.eval()


def adapter_config(adapter: str) -> PeftConfig:
    """PEFT's config of a saved adapter.

    Raises:
        PromptCBLUEError: it has none that can be read.
    """
    from peft import PeftConfig

    from . import adapters  # noqa: F401 - makes the parallel adapter known to PEFT

    try:
        return PeftConfig.from_pretrained(adapter)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PromptCBLUEError(f"adapter {adapter}: its config cannot be read: {first_line(error)}") from error


def convert(folder: Path, dtype: str, *, trust_remote_code: bool = False) -> None:
    """Have the model in a folder in another number format.

    Raises:
        PromptCBLUEError: there is no such format, or a file cannot be read or written.
    """
    model = load_model(str(folder), choose_dtype(dtype, best_device()), trust_remote_code=trust_remote_code)
    with TemporaryDirectory(dir=folder) as temporary:
        model.save_pretrained(temporary)
        # Fewer files may hold it now.
        for old in (path for pattern in (*WEIGHTS, "*.index.json") for path in folder.glob(pattern)):
            old.unlink()
        take_weights(Path(temporary), folder)


def merge(source: ModelSource, output: Path, dtype: str = "auto") -> None:
    """Write a backbone with its adapter merged into its weights: a model of its own, with tokenizer, card and record.

    Args:
        output: a folder that is not there yet.
        dtype: number format to save in; ``auto`` for the backbone's. The sum is made in float32.

    Raises:
        PromptCBLUEError: there is no adapter, or one of a kind that no weights can hold.
    """
    import torch
    from huggingface_hub import ModelCard
    from transformers import AutoConfig

    if source.adapter is None:
        raise PromptCBLUEError(f"{source.backbone} has no adapter to merge: it is a whole model already")
    if output.exists():
        raise PromptCBLUEError(f"{output}: is there already; name a folder that is not")
    kind = adapter_config(source.adapter).peft_type.value
    if kind not in ("LORA", "ADALORA"):
        raise PromptCBLUEError(
            f"{source.adapter}: {kind} stands beside the weights and cannot be merged into them; lora and adalora can"
        )
    model: Any = load_for_prediction(source, torch.float32)
    config = AutoConfig.from_pretrained(source.backbone)
    own = (config.dtype or torch.float32) if dtype == "auto" else choose_dtype(dtype, best_device())
    merged = model.merge_and_unload(safe_merge=True).to(own)
    with replacing(output) as folder:
        merged.save_pretrained(folder)
        load_tokenizer(source.tokenizer).save_pretrained(folder)
        for name in (RECORD, CARD):
            if path := _file_of(source.adapter, name):
                shutil.copyfile(path, folder / name)
        if (folder / CARD).is_file():
            card = ModelCard.load(folder / CARD)
            card.data.library_name, card.data.base_model_relation = "transformers", "merge"
            card.save(folder / CARD)


def tuned_tasks(source: ModelSource) -> Collection[str]:
    """The tasks whose targets a model was fine-tuned on here, as the record of its run says; none for other models."""
    for name in filter(None, source):
        if record := _file_of(name, RECORD):
            try:
                configs = json.loads(record.read_text(encoding="utf-8"))["notes"]["recipe"].get("configs")
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            return [get_task(config).name for config in configs] if configs else list(REGISTRY)
    return ()


def context_length(model: PreTrainedModel | PeftModel) -> int | None:
    """How many tokens the model can see, prompt and answer together; None where its config does not say.

    An adapter's virtual tokens are not among them: they take their positions before the prompt.
    """
    from .adapters.prompts import virtual_tokens

    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) - virtual_tokens(model) if length else None


def _load(auto_class: Any, name: str, **options: object) -> Any:
    check_exists(name)
    try:
        return auto_class.from_pretrained(str(Path(name).expanduser()) if Path(name).exists() else name, **options)
    except (OSError, ValueError, ImportError) as error:
        where = "" if Path(name).expanduser().exists() else " (there is no such folder here)"
        raise PromptCBLUEError(f"model {name}{where} cannot be loaded: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error of a library says first."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def best_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float16 on older GPUs, float32 elsewhere.

    A CPU can emulate bfloat16, many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "xpu" else torch.float32


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called ``name``, or the best one for the device if it is ``auto``.

    Raises:
        PromptCBLUEError: no dtype of ours is called so.
    """
    import torch

    if name not in DTYPES:
        raise PromptCBLUEError(f"unknown dtype '{name}'; expected one of {', '.join(DTYPES)}")
    dtype: torch.dtype = best_dtype(device) if name == "auto" else getattr(torch, name)
    return dtype


def attention_kernel(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """What to ask transformers for by the name in a recipe; None for what the model takes by itself."""
    if name != "auto":
        return name
    from transformers.utils import is_flash_attn_2_available

    fits = device.type == "cuda" and dtype.itemsize == 2 and is_flash_attn_2_available()
    return "flash_attention_2" if fits else None


def has_variable_lengths(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a model's attention kernel takes samples in one row as they are, and needs no mask of all by all."""
    kernel = str(getattr(model.config.get_text_config(), "_attn_implementation", None))
    return "flash" in kernel or "/" in kernel


def spare_threads(model: PreTrainedModel, device: torch.device) -> None:
    """Give a tiny model on the CPU one thread, unless ``OMP_NUM_THREADS`` asks for a number.

    The threads of each small operation wait for one another; measured with 0.8 million parameters on two cores that
    were in use, one thread trained in half the time of two and generated in a tenth.
    """
    import torch

    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and model.num_parameters() < _TINY:
        torch.set_num_threads(1)
