"""What the tests of exports share: transformers and llama.cpp asked for logits."""

import json
import math
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
import transformers

import attar

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SHARED = SOURCE.parent / "shared"
IDS = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 400, 428, 5, 67, 300, 9, 44, 8]
transformers.utils.logging.set_verbosity_error()


def needed(path):
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


def load(folder, **options):
    """The model of a folder in transformers, float32, attention written out."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options).eval()


def logits_of(model, ids):
    """[T, vocabulary] float32."""
    with torch.no_grad():
        return model(torch.as_tensor(ids).unsqueeze(0)).logits[0].float()


def relative_difference(ours, theirs):
    """The largest difference as a share of the largest logit."""
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    return float((ours - theirs).abs().max() / theirs.abs().max())


def divergence(log_p, log_q):
    """KL(p || q) in nats of two [vocabulary] log distributions, summed in double."""
    log_p, log_q = log_p.double(), log_q.double()
    return float((log_p.exp() * (log_p - log_q)).sum())


# llama.cpp lives in a process of its own: it brings its own thread pool, and ends with the process.
SERVER = """
import json, os, sys, urllib.request
import xllamacpp
path, prompts, vocabulary = sys.argv[1], json.loads(sys.stdin.read()), int(sys.argv[2])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 512, 512, 512, 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
params.port, params.warmup, params.n_gpu_layers, params.fit_params = 0, False, 0, False
params.cache_prompt = False
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
answers = []
for ids in prompts:
    body = {"prompt": ids, "n_predict": 1, "n_probs": vocabulary, "temperature": 0,
            "cache_prompt": False}
    request = urllib.request.Request(server.listening_address + "/completion",
                                     json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        said = json.load(answer)
    answers.append([[entry["id"], entry["logprob"]]
                    for entry in said["completion_probabilities"][0]["top_logprobs"]])
print(); print("ANSWER " + json.dumps(answers), flush=True)
os._exit(0)
"""


def ask_llama_cpp(program, *arguments, text):
    """What `program` answers in a process of its own. Asked again when its server hangs, as was
    seen once on a busy machine."""
    for patience in (240, 600):
        try:
            done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], input=text,
                                  capture_output=True, text=True, timeout=patience)
            break
        except subprocess.TimeoutExpired:
            if patience == 600:
                raise
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0][7:])


def llama_cpp(path, prompts, vocabulary):
    """Log probabilities of the token after each prompt, as llama.cpp gives: [vocabulary] each."""
    rows = []
    for answer in ask_llama_cpp(SERVER, path, vocabulary, text=json.dumps(prompts)):
        row = torch.full([vocabulary], -math.inf, dtype=torch.float64)
        for token, value in answer:
            row[token] = value
        assert bool(row.isfinite().all()), f"{int((~row.isfinite()).sum())} tokens have no answer"
        # Its sum is that of float32 over the whole vocabulary.
        assert abs(float(row.logsumexp(-1))) < 1e-3
        rows.append(row.log_softmax(-1))
    return rows


def make_tiny(folder, hidden=64, family="llama", layers=2, kv_heads=2):
    """A model of transformers whose widths hold groups of `hidden`."""
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(
        family, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=kv_heads, vocab_size=512,
        max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, initializer_range=0.2, tie_word_embeddings=False)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight[3:259] = 0  # llama.cpp gives no distribution for half a character
        for name, values in model.named_parameters():
            if name.endswith(".bias"):
                values.normal_()
            elif name.endswith("norm.weight"):
                values.uniform_(0.5, 2)
    model.half().float().save_pretrained(folder)
    shutil.copyfile(needed(SHARED / "data/tokenizers/llama2c/tok512.model"),
                    folder / "tokenizer.model")
    return folder


def llama_cpp_divergences(path, prompts):
    """KL of llama.cpp's next-token distribution from ours on the same file, a prompt each."""
    pytest.importorskip("xllamacpp")
    model = attar.open(path)
    theirs = llama_cpp(path, prompts, model.config["vocabulary"])
    return [divergence(model.logits(ids)[-1].double().log_softmax(-1), row)
            for ids, row in zip(prompts, theirs)]
