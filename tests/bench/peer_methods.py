"""peer_methods.py METHOD OPTIONS: one reference method, run by its own package on transformers; started
by peers.py with the Python that has requirements-peers.txt. OPTIONS is JSON. Writes a Hugging Face
folder and prints {"seconds", "size"} as its last line.

sparsegpt, wanda   llmcompressor's modifiers, 2:4, all Linear layers of the blocks
svd, whitened      no package holds SVD-LLM (Wang et al. 2024, arXiv:2403.07378); this is our
                   transcription of the paper's formulas, in float64
lora               PEFT and a torch training loop
"""

import json
import math
import pathlib
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel


def load(options):
    torch.set_num_threads(options["threads"])
    return AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32)


def tokens_of(options):
    tokenizer = AutoTokenizer.from_pretrained(options["model"])
    text = pathlib.Path(options["text"]).read_text()
    return torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)


def windows(options):
    count, length = options["sequences"], options["length"]
    return tokens_of(options)[: count * length].reshape(count, length)


def save(model, options, dtype=torch.float16):
    PreTrainedModel.save_pretrained(model.to(dtype), options["out"])
    AutoTokenizer.from_pretrained(options["model"]).save_pretrained(options["out"])


# --- 2:4 --------------------------------------------------------------------------------------


def sparse(method, options):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    modifier = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[method]
    model, ids = load(options), windows(options)
    dataset = Dataset.from_dict({"input_ids": ids.tolist(),
                                 "attention_mask": torch.ones_like(ids).tolist()})
    since = time.perf_counter()
    oneshot(model=model, dataset=dataset, max_seq_length=options["length"],
            num_calibration_samples=len(ids), shuffle_calibration_samples=False,
            pipeline="sequential",
            recipe=modifier(sparsity=0.5, mask_structure="2:4", targets=["Linear"],
                            ignore=["re:.*lm_head"]))
    seconds = time.perf_counter() - since
    linear = [m.weight for name, m in model.named_modules()
              if isinstance(m, torch.nn.Linear) and not name.endswith("lm_head")]
    kept = sum(int((w != 0).sum()) for w in linear) / sum(w.numel() for w in linear)
    save(model, options)
    return seconds, kept


# --- low rank ---------------------------------------------------------------------------------


def linears(block):
    return [m for m in block.modules() if isinstance(m, torch.nn.Linear)]


@torch.no_grad()
def run_block(block, states, rest, grams=None):
    """Outputs of a block; X X^T of each of its Linear layers goes into `grams`."""
    hooks = []
    if grams is not None:
        def add(layer, inputs):
            x = inputs[0].flatten(0, -2).double()
            grams[layer] = grams.get(layer, 0) + x.T @ x
        hooks = [layer.register_forward_pre_hook(add) for layer in linears(block)]
    outputs = [block(x, **rest) for x in states]
    for hook in hooks:
        hook.remove()
    return [y[0] if isinstance(y, tuple) else y for y in outputs]


@torch.no_grad()
def entering(model, ids):
    """What enters the first block, and the block's other arguments."""
    caught = []

    def catch(_, inputs, rest):
        caught.append((inputs[0] if inputs else rest.pop("hidden_states"), rest))
        raise StopIteration

    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for row in ids:
        try:
            model(row[None], use_cache=False)
        except StopIteration:
            pass
    hook.remove()
    return [x for x, _ in caught], caught[0][1]


def whitening(gram):
    """L with L L^T = gram, lifted to positive definite where it is not (section 3.2)."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        lift = 1e-6 - torch.linalg.eigvalsh(gram)[0]
        lower = torch.linalg.cholesky(gram + lift * torch.eye(len(gram), dtype=gram.dtype))
    return lower


def factors(weight, rank, lower=None):
    """SVD of W L, cut to `rank`: left [m, r] and right [r, n] = sqrt(S) V^T L^-1."""
    scaled = weight if lower is None else weight @ lower
    u, s, v = torch.linalg.svd(scaled, full_matrices=False)
    root = s[:rank].sqrt()
    right = root[:, None] * v[:rank]
    if lower is not None:
        right = torch.linalg.solve_triangular(lower, right, upper=False, left=False)
    return u[:, :rank] * root, right


@torch.no_grad()
def low_rank(method, options):
    """svd: of the weights alone. whitened: W L is cut, L from the dense model's activations.
    updated: and the left factor solved again on the inputs that the cut blocks before give
    (section 3.3, closed form)."""
    model = load(options).eval()
    since = time.perf_counter()
    dense, rest = entering(model, windows(options)) if method != "svd" else ([], {})
    cut = dense
    kept = total = 0
    for block in model.model.layers:
        grams, own = {}, {}
        dense = run_block(block, dense, rest, grams)
        if method == "updated":
            run_block(block, cut, rest, own)
        for layer in linears(block):
            weight = layer.weight.double()
            m, n = weight.shape
            rank = int(m * n * options["keep"] / (m + n))
            left, right = factors(weight, rank, whitening(grams[layer]) if grams else None)
            if own:
                seen = own[layer] @ right.T
                left = torch.linalg.lstsq((right @ seen).T, (weight @ seen).T).solution.T
            layer.weight.copy_((left.half().double() @ right.half().double()).float())
            kept, total = kept + rank * (m + n), total + m * n
        if method == "updated":
            cut = run_block(block, cut, rest)
    seconds = time.perf_counter() - since
    save(model, options)
    return seconds, kept / total


# --- LoRA -------------------------------------------------------------------------------------


def rate_at(step, options):
    steps, warmup = options["steps"], math.ceil(options["warmup"] * options["steps"])
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))


def lora(_, options):
    from peft import LoraConfig, get_peft_model

    model = load(options).train()
    torch.manual_seed(options["seed"])
    model = get_peft_model(model, LoraConfig(r=options["rank"], lora_alpha=options["alpha"],
                                             target_modules="all-linear", lora_dropout=0.0))
    steps, batch, length = options["steps"], options["batch"], options["length"]
    tokens = tokens_of(options)
    order = torch.randperm(steps * batch)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=options["rate"], betas=(0.9, 0.95), weight_decay=0)
    micro = max(1, 1024 // length)  # sequences that go through the model together, as in attar
    since = time.perf_counter()
    for step in range(steps):
        rows = torch.stack([tokens[w * length : (w + 1) * length + 1]
                            for w in order[step * batch : (step + 1) * batch]])
        for part in rows.split(micro):
            logits = model(part[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(),
                                                     reduction="sum") / (batch * length)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = options["rate"] * rate_at(step, options)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - since
    size = sum(p.numel() for p in learning)
    save(model.merge_and_unload(), options, torch.float32)
    return seconds, size


METHODS = {"sparsegpt": sparse, "wanda": sparse, "svd": low_rank, "whitened": low_rank,
           "updated": low_rank, "lora": lora}

if __name__ == "__main__":
    name, given = sys.argv[1], json.loads(sys.argv[2])
    taken, amount = METHODS[name](name, given)
    print(json.dumps({"seconds": taken, "size": amount}))
