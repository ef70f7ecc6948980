"""attar makes language models small: open, plan, run, evaluate, compare.

Every function gives what the program `attar` gives with `-o json`, through the same C++; Python
adds names and types. Paths are str or os.PathLike. Work runs without the GIL; Ctrl-C stops it at
the next safe point. `threads` 0 means the recipe's number, or all of the machine's; no result
depends on it.

Errors: UsageError and BadInput are ValueErrors, DoesNotFit, NumericRefusal, GateNotMet, IoError and
Stopped RuntimeErrors. Each message says where, what is wrong and what to do.

>>> import attar
>>> model = attar.open("models/smollm2.gguf")
>>> model.generate("The capital of France is", max_new_tokens=4).text
' Paris. The capital'
>>> done = attar.run("recipes/smollm2.yaml", out="out", overrides={"calibration.sequences": 32})
>>> done.results["attar"]["texts"][0]["kl_mean"]["value"]
"""

import dataclasses
import json
import os
import pathlib
from typing import Any, Mapping, Optional, Sequence, Union

import torch  # before the compiled part, which is linked with its libraries

from ._build import TORCH_VERSION
from ._build import VERSION as __version__  # noqa: F401 (for who imports attar)

if torch.__version__.split("+")[0] != TORCH_VERSION:
    raise ImportError(f"attar was built against torch {TORCH_VERSION}, this is torch "
                      f"{torch.__version__}; build attar again ('make build')")

from ._attar import (BadInput, DoesNotFit, GateNotMet, IoError, NumericRefusal, Stopped, Tokenizer,
                     UsageError)
from . import _attar

__all__ = ["BadInput", "DoesNotFit", "GateNotMet", "Generation", "IoError", "Model",
           "NumericRefusal", "RunResult", "Stopped", "Tokenizer", "UsageError", "compare",
           "evaluate", "open", "passes", "plan", "run"]

Path = Union[str, "os.PathLike[str]"]
Recipe = Union[Path, Mapping[str, Any]]
Ids = Union[torch.Tensor, Sequence[int]]
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Generation:
    """What greedy decoding gave.

    prompt_ids: what the model was asked; ids: the new tokens alone, an end token included;
    text: of the new tokens, None where the model has no tokenizer.
    """

    prompt_ids: list[int]
    ids: list[int]
    text: Optional[str]


class Model:
    """A model file: a Hugging Face folder or a *.gguf. Made by attar.open.

    Weights stay on disk until `logits` or `generate` reads them, as float32. May be used from
    several threads; they take turns.
    """

    def __init__(self, path: Path):
        self._model = _attar.OpenModel(os.fspath(path))

    def __repr__(self) -> str:
        config = self.config
        return (f"attar.Model({self.path!r}: {self.format}, {config['family']}, "
                f"{config['layers']} layers, hidden {config['hidden']})")

    @property
    def path(self) -> str:
        return self._model.path

    @property
    def format(self) -> str:
        """"huggingface", "gguf", ..."""
        return self._model.format

    @property
    def config(self) -> Json:
        """The shape: family, layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary, ..."""
        return json.loads(self._model.config)

    @property
    def layers(self) -> int:
        """How many transformer blocks."""
        return self.config["layers"]

    @property
    def tensors(self) -> list[Json]:
        """Every matrix, from headers: {layer, tensor, type, shape [out, in], bytes, bias}."""
        return json.loads(self._model.tensors())

    @property
    def tokenizer(self) -> Optional[Tokenizer]:
        """None where the files hold no tokenizer."""
        return self._model.tokenizer

    def sha256(self) -> str:
        """Of weights and configuration; reads them all."""
        return self._model.sha256()

    def logits(self, ids: Ids) -> torch.Tensor:
        """Logits after every token.

        ids: [T] token ids, 1 <= T <= max_positions. Returns float32 [T, vocabulary].
        Raises UsageError for a wrong shape or too many tokens, BadInput for an id outside of the
        vocabulary, NumericRefusal when a logit is not finite.

        >>> model.logits([1, 403, 407]).argmax(-1)
        """
        return self._model.logits(torch.as_tensor(ids, dtype=torch.int64))

    def generate(self, prompt: Union[str, Ids], *, max_new_tokens: int = 128,
                 runtime: str = "dense", kv_bits: int = 32) -> Generation:
        """Continues `prompt`, text or token ids [T], greedily: of equal logits the lowest id wins.

        Ends after max_new_tokens, at the end of the model's positions or with one of tokenizer.ends.
        runtime: "dense", float32 throughout; "quantized", the codes of the file times activations
        rounded to 8 bits, several times as fast. kv_bits: 32 (float32), 8 or 4 bits of keys and
        values. Weights are loaded again when one of the two changes.
        Raises UsageError for an empty or too long prompt, for text without a tokenizer, or for
        another runtime or number of bits.

        >>> model.generate("Once upon a time", max_new_tokens=8).text
        """
        tokenizer = self.tokenizer
        if isinstance(prompt, str):
            if tokenizer is None:
                raise UsageError(f"[{self.path}] has no tokenizer; give token ids")
            prompt = tokenizer.encode_prompt(prompt)
        ids = torch.as_tensor(prompt, dtype=torch.int64)
        stop = tokenizer.ends if tokenizer is not None else []
        new = self._model.generate(ids, max_new_tokens=max_new_tokens, stop_ids=stop,
                                   runtime=runtime, kv_bits=kv_bits)
        return Generation(ids.tolist(), new, tokenizer.decode(new) if tokenizer else None)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run: what stands in its output folder.

    out: the folder; results: results.json; manifest: manifest.json; exports: the files and folders
    that the recipe's `export` names; table: the summary, Markdown; was_complete: the folder held
    this very run already and nothing was done.
    """

    out: pathlib.Path
    results: Json
    manifest: Json
    exports: list[pathlib.Path]
    table: str
    was_complete: bool


def open(path: Path) -> Model:
    """Opens a Hugging Face folder or a *.gguf file; reads headers only.

    Raises IoError when nothing is there, BadInput when it is neither or holds what attar does not
    read.
    """
    return Model(path)


def run(recipe: Recipe, *, out: Path, overrides: Optional[Mapping[str, Any]] = None,
        threads: int = 0, batch: int = 0, replace: bool = False) -> RunResult:
    """Runs a recipe from beginning to end; after a kill the same call goes on.

    recipe: path of a YAML file, or its content as a mapping (relative paths in a mapping are those
    of the working directory). overrides: {"passes.0.bits": 3}. batch: sequences a forward, 0: the
    recipe's; no result depends on it. replace: a finished `out` of another run gives way.

    Raises every error of this package; a failure leaves nothing behind but, if there are any,
    finished blocks in the folder that the message names.

    >>> attar.run("recipes/smollm2.yaml", out="out", threads=2).table
    """
    assignments = _assignments(overrides)
    if batch:
        assignments.append(f"calibration.batch={batch}")
    done = json.loads(_attar.run(**_recipe(recipe), overrides=assignments, out=os.fspath(out),
                                 replace=replace, threads=threads))
    folder = pathlib.Path(done["out"])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    exports = [folder / entry["path"] for entry in done["results"]["attar"]["exports"]]
    return RunResult(folder, done["results"], manifest, exports, done["table"],
                     done["was_complete"])


def plan(recipe: Recipe, *, overrides: Optional[Mapping[str, Any]] = None,
         out: Optional[Path] = None, threads: int = 0) -> Json:
    """What a run would do, from headers alone: every tensor, bytes, memory, disk, time.

    Raises what a run would raise before its first computation. `out`, when given, is checked for
    space and permission.

    >>> attar.plan("recipes/smollm2.yaml")["peak_bytes"]
    """
    return json.loads(_attar.plan(**_recipe(recipe), overrides=_assignments(overrides),
                                  out=os.fspath(out or ""), threads=threads))


def evaluate(model: Path, tasks: Union[Mapping[str, Any], Sequence[Any]], *,
             teacher: Optional[Path] = None, runtime: str = "dense", kv_bits: int = 32,
             threads: int = 0) -> Json:
    """Measures a model; returns results.json in lm-evaluation-harness's schema.

    tasks: entries as in a recipe's `eval`, as a mapping or a list. teacher: a model to compare
    with document by document; texts then give KL and agreement beside perplexity. runtime: what
    answers tasks, as in Model.generate; kv_bits: 32, 8 or 4 bits of keys and values.

    >>> attar.evaluate("models/smollm2.gguf", {
    ...     "arc_easy": {"path": "data", "limit": 100},
    ...     "perplexity": {"text": "wiki.txt", "length": 2048, "windows": 20}})
    """
    steps = [{name: options} for name, options in tasks.items()] if isinstance(
        tasks, Mapping) else list(tasks)
    return json.loads(_attar.evaluate(model=os.fspath(model), tasks=json.dumps(steps, default=str),
                                      teacher=os.fspath(teacher or ""), runtime=runtime,
                                      kv_bits=kv_bits, threads=threads))


def compare(a: Path, b: Path, *, text: Path, length: int = 1024, windows: int = 0,
            kv_bits: int = 32, threads: int = 0) -> Json:
    """KL from `a` (right by definition) to `b`, agreement and perplexity of both on a text file.

    The text is tokenized at once, with a BOS where the tokenizer adds one, and cut into windows of `length` tokens that do not
    overlap; `windows`: the first so many, 0: all. kv_bits: bits of keys and values of `b`: 32, 8 or
    4. Nats; intervals are 95 %.
    """
    return json.loads(_attar.compare(original=os.fspath(a), changed=os.fspath(b),
                                     text=os.fspath(text), length=length, windows=windows,
                                     kv_bits=kv_bits, threads=threads))


def passes() -> list[Json]:
    """The passes that a recipe may name: {name, summary, options}."""
    return json.loads(_attar.passes())


def _recipe(recipe: Recipe) -> Json:
    if isinstance(recipe, Mapping):
        return {"recipe": json.dumps(recipe, default=str, ensure_ascii=False), "is_text": True}
    return {"recipe": os.fspath(recipe), "is_text": False}


def _assignments(overrides: Optional[Mapping[str, Any]]) -> list[str]:
    """JSON is YAML, which is what an override's value is read as."""
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}"
            for key, value in (overrides or {}).items()]
