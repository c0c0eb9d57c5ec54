"""llama.cpp in this process: a GGUF file behind the engine's interface, without torch or transformers.

The xllamacpp package carries llama.cpp. Its own interface is an HTTP server, whose repetition penalty counts the format
and whose random numbers are others. So call the C functions below it (include/llama.h in llama.cpp): they give the
scores of the next token, and everything around them is the engine's own code.
"""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ghost.errors import ConversionError
from ghost.installed import install_command
from ghost.serving import gguf_file
from replicate_deployment import predict
from replicate_deployment.chat_format import first_turn
from replicate_deployment.engine import Engine, format_ids
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings

Scores = Any  # numpy.ndarray, float32 (vocabulary,)

# llama.cpp's C functions, by ctypes.

_TOKEN, _POINTER, _TEXT = ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p
_INT, _BOOL, _SIZE = ctypes.c_int32, ctypes.c_bool, ctypes.c_size_t
_TOKENS, _FLOATS = ctypes.POINTER(_TOKEN), ctypes.POINTER(ctypes.c_float)
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, _TEXT, _POINTER)
_ERROR = 4  # GGML_LOG_LEVEL_ERROR


class _Params(ctypes.Structure):
    """Any struct over 16 bytes that is returned and taken by value, as the last argument.

    A larger block than the struct does no harm there: both calling conventions (System V, AArch64) put it in memory,
    and the callee reads its beginning. So its layout, which changes between versions, need not be known.
    """

    _fields_ = [("bytes", ctypes.c_uint8 * 1024)]  # ctypes reads a list


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_adapter_lora_init": (_POINTER, [_POINTER, _TEXT]),
    "llama_batch_get_one": (_Params, [_TOKENS, _INT]),
    "llama_context_default_params": (_Params, []),
    "llama_decode": (_INT, [_POINTER, _Params]),
    "llama_free": (None, [_POINTER]),
    "llama_get_logits_ith": (_FLOATS, [_POINTER, _INT]),
    "llama_get_memory": (_POINTER, [_POINTER]),
    "llama_init_from_model": (_POINTER, [_POINTER, _Params]),
    "llama_log_set": (None, [_LOG, _POINTER]),
    "llama_memory_seq_rm": (_BOOL, [_POINTER, _INT, _INT, _INT]),
    "llama_model_default_params": (_Params, []),
    "llama_model_free": (None, [_POINTER]),
    "llama_model_get_vocab": (_POINTER, [_POINTER]),
    "llama_model_meta_val_str": (_INT, [_POINTER, _TEXT, _TEXT, _SIZE]),
    "llama_model_load_from_file": (_POINTER, [_TEXT, _Params]),
    "llama_model_n_ctx_train": (_INT, [_POINTER]),
    "llama_set_adapters_lora": (_INT, [_POINTER, ctypes.POINTER(_POINTER), _SIZE, _FLOATS]),
    "llama_set_n_threads": (None, [_POINTER, _INT, _INT]),
    "llama_token_to_piece": (_INT, [_POINTER, _TOKEN, _TEXT, _INT, _INT, _BOOL]),
    "llama_tokenize": (_INT, [_POINTER, _TEXT, _INT, _TOKENS, _INT, _BOOL, _BOOL]),
    "llama_vocab_bos": (_TOKEN, [_POINTER]),
    "llama_vocab_eos": (_TOKEN, [_POINTER]),
    "llama_vocab_get_add_bos": (_BOOL, [_POINTER]),
    "llama_vocab_is_eog": (_BOOL, [_POINTER, _TOKEN]),
    "llama_vocab_n_tokens": (_INT, [_POINTER]),
    "llama_vocab_type": (_INT, [_POINTER]),
}
_SENTENCEPIECE = 1  # LLAMA_VOCAB_TYPE_SPM
_errors: list[str] = []  # what llama.cpp has logged since the last call that can fail


@_LOG  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: int) -> None:
    if level == _ERROR:
        _errors.append(text.decode(errors="replace").strip())


@cache
def _library() -> Any:
    """Raises WeightsError when xllamacpp is missing, or has not all of the functions."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        command = install_command("home")
        raise WeightsError(f"xllamacpp, which runs GGUF files, is not installed; type: {command}")
    try:
        (path,) = Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so")
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        raise WeightsError(f"xllamacpp cannot be loaded ({error}); Debian and Ubuntu: apt install libgomp1") from error
    except (AttributeError, ValueError) as error:
        raise WeightsError(
            f"this version of xllamacpp cannot be used ({error}); type: {install_command('home')}"
        ) from error
    library.llama_log_set(_log, None)
    return library


# What a file says of itself, before it is loaded.


def read_ghost(file: Path, lora: Path | None = None) -> Ghost:
    """Return the facts of the model that `file` is, or is together with the adapter `lora`.

    Raises WeightsError or ConversionError when the two are no whole model.
    """
    facts = gguf_file.read_facts(file)
    if lora is None:
        if facts["kind"] == "adapter":
            raise WeightsError(
                f"{file} is an adapter; name its base, and this file after --lora. The base's file is written by: "
                "ghost export --base BASE --gguf q4_0"
            )
        if facts["kind"] == "base":
            raise WeightsError(
                f"{file} is a base that nobody's messages changed; name an adapter too: --lora FILE, which is written "
                "by: ghost export ADAPTER --gguf-adapter"
            )
    else:
        if lora.is_dir():
            raise WeightsError(f"--lora {lora} is a folder; type: ghost export {lora} --gguf-adapter")
        base, facts = facts, gguf_file.read_facts(lora)
        if facts["kind"] != "adapter":
            raise WeightsError(f"--lora {lora} is a {facts['kind']} model; name what ghost export --gguf-adapter wrote")
        if base["kind"] != "base":
            raise WeightsError(f"--lora runs over a base, and {file} is a {base['kind']} model; leave out --lora")
        if base["base_sha256"] != facts["base_sha256"]:
            trained, found = (one["base_sha256"][:12] for one in (facts, base))
            raise WeightsError(
                f"{lora} was trained on base {trained}…, and {file} is base {found}…; export the right one: "
                "ghost export --base BASE --gguf q4_0"
            )
    ghost = Ghost(lora or file, facts)
    try:
        _ = ghost.labels, ghost.stop_sequences, ghost.settings
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{ghost.folder}: {gguf_file.FACTS} is not readable ({type(error).__name__}: {error}); export it again"
        ) from error
    return ghost


# The model.

CONTEXT = 2048  # tokens: 1,024 for the history, where training windows are cut, and 1,024 for the longest reply
# Read a prompt in pieces of this many tokens: a cancellation waits for one at most.
PREFILL_TOKENS = 64


class LlamaCpp:
    """A GGUF file, open, with a LoRA adapter over it if `lora` names one. Close it, or use it in a `with`."""

    def __init__(self, file: Path, lora: Path | None = None) -> None:
        """Raises ConversionError when llama.cpp cannot load the files."""
        self._c, self._model, self._context = _library(), None, None
        self._read: list[int] = []  # the tokens whose keys and values are in the cache
        for path in (file, lora):
            if path is not None:
                gguf_file.check_file(path)
        _errors.clear()
        try:
            self._model = self._c.llama_model_load_from_file(os.fsencode(file), self._c.llama_model_default_params())
            self._check_pointer(self._model, file)
            self.context = min(CONTEXT, self._c.llama_model_n_ctx_train(self._model))
            self._context = self._c.llama_init_from_model(self._model, self._params())
            self._check_pointer(self._context, file)
            count = usable_threads()
            self._c.llama_set_n_threads(self._context, count, count)
            if lora is not None:
                adapter = _POINTER(self._c.llama_adapter_lora_init(self._model, os.fsencode(lora)))
                self._check_pointer(adapter.value, lora)
                full = ctypes.c_float(1.0)
                self._c.llama_set_adapters_lora(self._context, ctypes.byref(adapter), 1, ctypes.byref(full))
        except BaseException:
            self.close()
            raise
        self._vocabulary = self._c.llama_model_get_vocab(self._model)
        self.size: int = self._c.llama_vocab_n_tokens(self._vocabulary)
        has_bos = self._c.llama_vocab_get_add_bos(self._vocabulary)
        self.bos_token_id: int | None = self._c.llama_vocab_bos(self._vocabulary) if has_bos else None
        self.eos_token_id: int = self._c.llama_vocab_eos(self._vocabulary)
        # What the tokenizer in training puts before a text, and llama.cpp does not.
        self.begin = " " if self._c.llama_vocab_type(self._vocabulary) == _SENTENCEPIECE else ""

    def _params(self) -> _Params:
        """Raises WeightsError when this version's struct begins otherwise than with n_ctx, n_batch and n_ubatch."""
        params: _Params = self._c.llama_context_default_params()
        first = ctypes.cast(ctypes.byref(params), ctypes.POINTER(ctypes.c_uint32))
        if first[:3] != [512, 2048, 512]:
            raise WeightsError(f"this version of xllamacpp cannot be used; type: {install_command('home')}")
        # Memory is reserved for a whole batch.
        first[0], first[1], first[2] = self.context, PREFILL_TOKENS, PREFILL_TOKENS
        return params

    def _check_pointer(self, pointer: int | None, file: Path) -> None:
        if not pointer:
            raise ConversionError(f"{file}: llama.cpp cannot load it ({(_errors or ['it says no more'])[0]})")

    def ids(self, text: str, *, bos: bool = True, special: bool = False) -> list[int]:
        """Tokenise as llama.cpp does: with BOS before the text, if `bos` and if the file names one. Special tokens in
        `text` are read as such if `special`, else as text.
        """
        content = text.encode()
        room = len(content) + 2
        tokens = (_TOKEN * room)()
        count = self._c.llama_tokenize(self._vocabulary, content, len(content), tokens, room, bos, special)
        return tokens[:count]

    @property
    def is_f16(self) -> bool:
        """Whether the matrices are unrounded."""
        found = ctypes.create_string_buffer(16)
        self._c.llama_model_meta_val_str(self._model, b"general.file_type", found, len(found))
        return found.value in (b"0", b"1")  # LLAMA_FTYPE_ALL_F32, LLAMA_FTYPE_MOSTLY_F16

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The UTF-8 bytes of each id; empty for special tokens."""
        spelled, text = [], ctypes.create_string_buffer(1024)
        for token in range(self.size):
            length = self._c.llama_token_to_piece(self._vocabulary, token, text, len(text), 0, False)
            spelled.append(text.raw[: max(0, length)])
        return spelled

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The end token, and those that end a text in llama.cpp, which knows the common ones by name."""
        ends = (token for token in range(self.size) if self._c.llama_vocab_is_eog(self._vocabulary, token))
        return frozenset({self.eos_token_id, *ends})

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        """Tokenise `text` alone, without BOS, and with special tokens as text, as replicate_deployment/tokenization.py
        asks a tokenizer of transformers to: `input_ids` and, in characters, `offset_mapping`."""
        ids = self.ids(self.begin + text, bos=False)
        at = [place for place, character in enumerate(text) for _ in character.encode()]
        ends = [*accumulate((len(self.token_bytes[token]) for token in ids), initial=-len(self.begin))]
        spans = ((max(0, start), max(0, end)) for start, end in pairwise(ends))
        offsets = [(at[start], at[end - 1] + 1) if end > start else (0, 0) for start, end in spans]
        return {"input_ids": ids, "offset_mapping": offsets}

    def scores(self, ids: Sequence[int]) -> Scores:
        """Return the scores of the token after `ids`. Only those that do not begin the `ids` of the last call are
        read, and the last one. Raises WeightsError when llama.cpp fails."""
        same = min(len(self._read), len(ids) - 1)
        if self._read[:same] != [*ids[:same]]:
            same = next(place for place in range(same) if self._read[place] != ids[place])
        self._c.llama_memory_seq_rm(self._c.llama_get_memory(self._context), 0, same, -1)
        self._read = [*ids[:same]]
        while len(self._read) < len(ids):
            piece = ids[len(self._read) : len(self._read) + PREFILL_TOKENS]
            tokens = (_TOKEN * len(piece))(*piece)
            _errors.clear()
            if code := self._c.llama_decode(self._context, self._c.llama_batch_get_one(tokens, len(piece))):
                raise WeightsError(f"llama.cpp fails with code {code} ({(_errors or ['it says no more'])[0]})")
            self._read += piece
        return np.ctypeslib.as_array(self._c.llama_get_logits_ith(self._context, -1), (self.size,)).copy()

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return up to `count` tokens after `ids`, until an end token."""
        drawn: list[int] = []
        while len(drawn) < count and (token := int(self.scores([*ids, *drawn]).argmax())) not in self.end_ids:
            drawn.append(token)
        return drawn

    def logprobs(self, ids: Sequence[int]) -> Any:
        """Return the log-probabilities in nats of all tokens after `ids`: float64 (vocabulary,)."""
        scores = self.scores(ids).astype(np.float64)
        scores -= scores.max()
        return scores - np.log(np.exp(scores).sum())

    def close(self) -> None:
        if self._context:
            self._c.llama_free(self._context)
        if self._model:
            self._c.llama_model_free(self._model)  # and its adapter
        self._context = self._model = None

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def usable_threads() -> int:
    """OMP_NUM_THREADS, as for torch; else the cores of this process: two threads on one core wait for each other."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    if sys.platform != "linux":
        return os.cpu_count() or 1
    try:
        twofold = Path("/sys/devices/system/cpu/smt/active").read_text(encoding="utf-8").strip() == "1"
    except OSError:
        twofold = False
    return max(1, len(os.sched_getaffinity(0)) // (1 + twofold))


# The engine over it.


class Decoder:
    """What `Engine` asks of a decoder (replicate_deployment/decoding.py)."""

    def __init__(self, model: LlamaCpp) -> None:
        self._model, self._ids = model, list[int]()

    def start(self, ids: Sequence[int]) -> Scores:
        self._ids = [*ids]
        return self._model.scores(self._ids)

    def next(self, token: int) -> Scores:
        self._ids.append(token)
        return self._model.scores(self._ids)


class Sampler:
    """`replicate_deployment.sampling.Sampler` in numpy: a seed draws the same random numbers."""

    def __init__(
        self, settings: Settings, prompt_ids: Sequence[int], penalty_exempt: frozenset[int], seed: int | None, size: int
    ) -> None:
        self._settings = settings
        self._penalizable = np.ones(size, bool)
        self._penalizable[[*penalty_exempt]] = False
        self._penalized = np.zeros(size, bool)
        self._penalized[[*prompt_ids]] = True
        self._penalized &= self._penalizable
        # torch.rand in float64: the low 53 bits of two outputs of the same Mersenne Twister, seeded in the same way.
        words = np.random.RandomState(seed).randint(0, 2**32, (settings.max_new_tokens, 2), np.uint32).astype(np.uint64)
        self._drawn = iter((words[:, 0] << np.uint64(32) | words[:, 1]) % np.uint64(2**53) * 2.0**-53)

    def __call__(self, scores: Scores) -> int:
        chosen, penalty = self._settings, self._settings.repetition_penalty
        if penalty != 1:
            seen, scores = np.flatnonzero(self._penalized), scores.copy()
            scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
        if chosen.temperature == 0:
            token = int(scores.argmax())
        else:
            weights = self._cut(scores / chosen.temperature)
            cumulative = weights.cumsum(dtype=np.float64)
            token = int(cumulative.searchsorted(next(self._drawn) * cumulative[-1], side="right"))
            token = min(token, len(scores) - 1)
        self._penalized[token] = self._penalizable[token]
        return token

    def _cut(self, scores: Scores) -> Any:
        """Return the tokens' weights, float32, with 0 for those that top_k and top_p leave out."""
        weights = np.exp(scores - scores.max())
        if 0 < self._settings.top_k < len(scores):
            weights[scores < np.partition(scores, -self._settings.top_k)[-self._settings.top_k]] = 0
        if self._settings.top_p < 1:
            order = weights.argsort(kind="stable")
            rare = order[weights[order].cumsum() <= (1 - self._settings.top_p) * weights.sum()]
            weights[np.setdiff1d(rare, order[-1:])] = 0
        return weights


@dataclass(frozen=True)
class LlamaCppEngine(Engine):
    """The engine over a `LlamaCpp`, which is its `model` and its `tokenizer`."""

    @property
    def positions(self) -> int:
        return int(self.model.context)

    def _oldest(self, count: int) -> int:
        return first_turn(count)

    @contextmanager
    def _decoder(self, tokens: int) -> Iterator[Decoder]:
        yield Decoder(self.model)

    def _sampler(
        self, settings: Settings, prompt_ids: list[int], seed: int | None, scores: Scores
    ) -> Callable[[Scores], int]:
        return Sampler(settings, prompt_ids, self.penalty_exempt, seed, self.model.size)


def load_engine(file: Path, lora: Path | None = None) -> LlamaCppEngine:
    """Load the model and check by the golden prompt that it computes what was merged; an adapter has no such prompt.

    Raises WeightsError or ConversionError when it cannot be served.
    """
    ghost, model = read_ghost(file, lora), LlamaCpp(file, lora)
    if "golden" in ghost.facts:
        check_golden(model, ghost.facts["golden"], file)
    end_ids = model.end_ids
    return LlamaCppEngine(
        ghost=ghost,
        tokenizer=model,
        model=model,
        labels=ghost.labels,
        recipe=ghost.recipe,
        settings=ghost.settings,
        token_bytes=model.token_bytes,
        end_ids=end_ids,
        penalty_exempt=end_ids | format_ids(model, ghost.labels, model.token_bytes),
    )


# Nats, mean of the five likeliest. On SmolLM2 f16 moves them by 0.005, q8_0 by 0.14, q4_0 by 0.96, and leaving out the
# adapter by 0.72: in a rounded file this finds gross errors only.
ROUNDED_LIMIT = 2.0


def check_golden(model: LlamaCpp, golden: dict[str, Any], file: Path) -> None:
    """Raises WeightsError when the golden prompt gives other ids, or log-probabilities too far from those recorded."""
    if model.ids(model.begin + golden["prompt"]) != golden["ids"]:
        raise WeightsError(f"{file}: the golden prompt gives other ids than it records; export the model again")
    found = model.logprobs(golden["ids"])
    off = [abs(float(found[token]) - expected) for token, expected in golden["next_top5_logprobs"]]
    limit = golden["tolerance"] if model.is_f16 else ROUNDED_LIMIT
    if not sum(off) <= limit * len(off):
        raise WeightsError(
            f"{file}: the golden prompt's log-probabilities are off by {max(off):.2f} nats; export the model again"
        )


class Predictor(predict.Predictor):
    """The Cog interface (replicate_deployment/predict.py) to the GGUF file in GHOST_WEIGHTS, and GHOST_LORA over it."""

    def load(self) -> Engine:
        lora = os.environ.get("GHOST_LORA")
        return load_engine(Path(os.environ["GHOST_WEIGHTS"]), Path(lora) if lora else None)
